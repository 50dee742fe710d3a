"""What an answer may say (a JSON schema, by llguidance) and what it should rather say (names)."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voicetextblender.model.processing import SpeechLMProcessor

if TYPE_CHECKING:
    from llguidance import LLTokenizer

WHITESPACE = r"[ \n]{0,2}"
"""Between JSON tokens; a model that is unsure would else write blanks until it is cut off."""


BEGINS, GOES_ON = 1.0, 3.0
"""What the first token of a listed name gains in logits, and what those after it gain."""


class Schema:
    """A schema at work on one answer."""

    def __init__(self, processor: SpeechLMProcessor, schema: str) -> None:
        """Begin an answer. Raises ValueError if the schema is not JSON or not supported."""
        from llguidance import LLMatcher

        tokenizer = _tokenizer(processor)
        self.matcher = LLMatcher(tokenizer, _grammar(schema), log_level=0)
        if self.matcher.is_error():
            raise ValueError(f"the JSON schema cannot be used: {self.matcher.get_error()}")

    def allowed(self, vocabulary: int) -> Tensor:
        """(V,) bool: true on the tokens that may come next."""
        bias = torch.frombuffer(bytearray(self.matcher.compute_logit_bias()), dtype=torch.uint8)
        allowed = bias[:vocabulary].bool()
        return torch.nn.functional.pad(allowed, (0, vocabulary - len(allowed)))

    def accept(self, token: int) -> bool:
        """Go on behind a token; return whether the answer is whole."""
        self.matcher.consume_token(token)
        return self.matcher.is_stopped()


class Names:
    """Names and terms that may occur, made likelier at the places where they would go on."""

    def __init__(self, processor: SpeechLMProcessor, names: Sequence[str]) -> None:
        spellings = [spelling for name in names for spelling in (name, f" {name}")]
        ids = processor.tokenizer(spellings, add_special_tokens=False, split_special_tokens=True)
        self.names: list[list[int]] = ids["input_ids"]
        self.begun: list[list[int]] = []
        """What is left of names whose beginning was just said."""

    def favour(self, logits: Tensor) -> Tensor:
        """Return (V,) logits in which the names stand out a little."""
        gains = torch.zeros_like(logits)
        gains[[name[0] for name in self.names]] = BEGINS
        gains[[rest[0] for rest in self.begun]] = GOES_ON
        return logits + gains

    def accept(self, token: int) -> None:
        """Go on behind a token."""
        both = (*self.names, *self.begun)
        self.begun = [name[1:] for name in both if name[0] == token and len(name) > 1]


def check_schema(schema: str) -> None:
    """Refuse a schema that cannot be followed. Raises ValueError."""
    from llguidance import LLMatcher

    if problem := LLMatcher.validate_grammar(_grammar(schema)):
        raise ValueError(f"the JSON schema cannot be used: {problem.splitlines()[0]}")


def _grammar(schema: str) -> str:
    from llguidance import LLMatcher

    try:
        json.loads(schema)
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON schema is no JSON ({error.msg}); correct it") from None
    return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})


@lru_cache(maxsize=2)
def _tokenizer(processor: SpeechLMProcessor) -> "LLTokenizer":
    try:
        from llguidance.hf import from_tokenizer
    except ImportError:
        raise ValueError(
            "answers that follow a JSON schema need llguidance; "
            "install it with: pip install 'voicetextblender[serve]'"
        ) from None
    return from_tokenizer(processor.tokenizer, eos_token=list(processor.prompter.stop_ids))
