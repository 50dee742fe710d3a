"""Judges: a language model says whether an open answer is right, and which of two is better.

The measures are the paper's: correctness 0 or 1, where copying the context is 0 too, and redundancy
from 1 to 10. Prompts with their examples are pinned, and their digest stands with every score. Of
two answers each stands first once: a judge that changes its mind with the order prefers neither.
What was judged is kept, so scoring again asks nobody.

    http://host/v1#MODEL       any OpenAI-compatible service; asked for JSON, up to three times
    qwen2.5-1.5b, folder       a model in this process: its likeliest digits, which always parse
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import torch
from pydantic import BaseModel, Field
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from voicetextblender.chat import Conversation, assistant, system, user
from voicetextblender.model.parts import quietly, resolve
from voicetextblender.prompt import Prompter
from voicetextblender.synth.remote import is_url
from voicetextblender.synth.writers import Chat, Sampling, load_writer, write_json

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to be judged, or two to be compared."""

    question: str
    reference: str
    answer: str
    other: str | None = None

    def swapped(self) -> "Case":
        """Return the case with its two answers in the other order."""
        assert self.other is not None
        return Case(self.question, self.reference, self.other, self.answer)


class Verdict(BaseModel):
    """What a judge says of an answer."""

    correct: Annotated[int, Field(ge=0, le=1)]
    redundancy: Annotated[int, Field(ge=1, le=10)]


class Choice(BaseModel):
    """Which of two answers a judge prefers."""

    better: Annotated[int, Field(ge=1, le=2)]


Form = TypeVar("Form", bound=BaseModel)

_GRADE = """You grade an answer to a question. Compare it with the right answer.
correct: 1 if the given answer says what the right answer says, in whatever words and however long;
0 if it says something else, or only repeats the question or its text.
redundancy: from 1 (nothing but the answer) to 10 (mostly words that were not asked for).
Write JSON such as {"correct": 0, "redundancy": 1}."""
_COMPARE = """You compare two answers to a question with the right answer.
The better one says what the right answer says, in whatever words; if both do, it is the one with
fewer words that were not asked for. Write JSON such as {"better": 1}."""
_TOLD = "The zoo opens at nine and the lions are fed at noon."
_ZOO = (f"{_TOLD} When are the lions fed?", "At noon.")
_SEA = ("What is the largest ocean?", "The Pacific.")
_CATS = ("How many legs do two cats have?", "Eight.")
# A case, as its fields, and what is to be said of it.
_GRADED = (
    (*_ZOO, "At 12 o'clock.", '{"correct": 1, "redundancy": 1}'),
    (*_ZOO, _TOLD, '{"correct": 0, "redundancy": 8}'),
    (*_SEA, "It is the Atlantic.", '{"correct": 0, "redundancy": 1}'),
    (*_SEA, "All seas are deep, but the Pacific is largest.", '{"correct": 1, "redundancy": 5}'),
    (*_CATS, "Two cats have 8 legs.", '{"correct": 1, "redundancy": 2}'),
    (*_CATS, "Four.", '{"correct": 0, "redundancy": 1}'),
)
_COMPARED = (
    (*_ZOO, "At nine.", "At 12 o'clock.", '{"better": 2}'),
    (*_SEA, "The Pacific Ocean.", "The Atlantic.", '{"better": 1}'),
    (*_CATS, "Two cats have 8 legs.", "I love cats! Both have eight legs.", '{"better": 1}'),
    (*_CATS, "Four.", "Eight legs.", '{"better": 2}'),
)
DIGEST = hashlib.sha256(repr((_GRADE, _GRADED, _COMPARE, _COMPARED)).encode()).hexdigest()[:12]


class Judge(Protocol):
    """Anything that can judge answers."""

    def judge(self, chats: Sequence[Chat], form: type[Form]) -> list[Form | None]:
        """Return what is said to each chat; None where nothing is said that can be read."""
        ...


class LocalJudge:
    """A causal language model in this process: of each field, the likeliest of its digits."""

    def __init__(self, part: str) -> None:
        folder = resolve(part)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._prompter = Prompter(self._tokenizer)
        self._digits = [self._encode(str(n)) for n in range(10)]
        if any(len(digit) != 1 for digit in self._digits):
            raise ValueError(f"judge '{part}': its digits are not single tokens; use another")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with quietly():
            llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self._llm = nn.Module.to(llm.eval(), self._device)
        self._cache, self._read = DynamicCache(), list[int]()

    def judge(self, chats: Sequence[Chat], form: type[Form]) -> list[Form | None]:
        """Return what is likeliest to be said; the most is 9, the largest digit there is."""
        fields = form.model_json_schema()["properties"]
        found: list[Form | None] = []
        for chat in chats:
            asked = self._prompter.encode_for_answer(Conversation("case", chat)).ids
            said: dict[str, int] = {}
            for name, field in fields.items():
                begun = json.dumps(said)[:-1] + (", " if said else "") + f'"{name}": '
                allowed = range(field["minimum"], min(field["maximum"], 9) + 1)
                said[name] = self._likeliest([*asked, *self._encode(begun)], allowed)
            found.append(form.model_validate(said))
        return found

    @torch.inference_mode()
    def _likeliest(self, ids: list[int], allowed: range) -> int:
        """Return the likeliest digit behind tokens; what they share with the last ones is known."""
        same = 0  # the examples are the same for every case, and the longest part of its prompt
        while same < min(len(ids) - 1, len(self._read)) and ids[same] == self._read[same]:
            same += 1
        if too_many := len(self._read) - same:
            self._cache.crop(-too_many)
        self._read = ids
        row = torch.tensor([ids[same:]], device=self._device)
        found = self._llm(input_ids=row, past_key_values=self._cache, logits_to_keep=1)
        likely = found.logits[0, -1, [self._digits[n][0] for n in allowed]]
        return allowed[int(likely.argmax())]

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False).input_ids


class RemoteJudge:
    """A service with /v1/chat/completions, greedy."""

    def __init__(self, name: str) -> None:
        self._writer = load_writer(name)

    def judge(self, chats: Sequence[Chat], form: type[Form]) -> list[Form | None]:
        """Return what is said to each chat. Raises ValueError if the service is not there."""
        greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=100)
        found = write_json(self._writer, chats, [0] * len(chats), form, greedy)
        return [one if isinstance(one, form) else None for one in found]


@cache
def load_judge(name: str) -> Judge:
    """Return a judge, loaded once per process. Raises ValueError if there is none of that name."""
    return RemoteJudge(name) if is_url(name) else LocalJudge(name)


def verdicts(name: str, cases: Sequence[Case], kept: Path | None) -> list[Verdict | None]:
    """Return a judge's verdicts, those that were kept in the folder first; keep the new ones.

    Raises ValueError for a judge that is not there, or that says nothing which can be read.
    """
    return _judged(name, [_chat(_GRADE, _GRADED, case) for case in cases], Verdict, kept)


def preferences(name: str, cases: Sequence[Case], kept: Path | None) -> list[int | None]:
    """Return 1 where a judge prefers the answer to the other one, -1 where the other, 0 if neither.

    Each is asked in both orders, and neither is preferred where they disagree; None where one of
    them was not judged. Keeps and raises as `verdicts` does.
    """
    both = [*cases, *(case.swapped() for case in cases)]
    chats = [_chat(_COMPARE, _COMPARED, case) for case in both]
    found = _judged(name, chats, Choice, kept)
    return [
        None if one is None or two is None else _PREFERRED.get((one.better, two.better), 0)
        for one, two in zip(found[: len(cases)], found[len(cases) :], strict=True)
    ]


_PREFERRED = {(1, 2): 1, (2, 1): -1}  # the better one in either order


def _judged(
    name: str, chats: Sequence[Chat], form: type[Form], kept: Path | None
) -> list[Form | None]:
    path = None if kept is None else kept / f"{form.__name__.lower()}-{_digest(name)}.jsonl"
    known: dict[str, Form] = {}
    if path is not None and path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known[record.pop("asked")] = form.model_validate(record)
    keys = [_digest(*(turn.text for turn in chat)) for chat in chats]
    todo = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
    for first in range(0, len(todo), _AT_ONCE):  # killed, no more is lost than these
        some = [*todo][first : first + _AT_ONCE]
        found = load_judge(name).judge([todo[key] for key in some], form)
        new = {key: one for key, one in zip(some, found, strict=True) if one is not None}
        known |= new
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                for key, one in new.items():
                    file.write(json.dumps({"asked": key, **one.model_dump()}) + "\n")
    if keys and known.keys().isdisjoint(keys):
        raise ValueError(
            f"judge '{name}' said nothing that can be read of {len(keys)} answers; it must write "
            f"JSON with {', '.join(form.model_fields)}, and nothing else"
        )
    return [known.get(key) for key in keys]


def _chat(asked: str, examples: Sequence[tuple[str, ...]], case: Case) -> Chat:
    """Return a chat that asks for a judgement, behind examples of such."""
    turns = [system(asked)]
    for *shown, said in examples:
        turns += [user(_written(Case(*shown))), assistant(said)]
    return (*turns, user(_written(case)))


def _written(case: Case) -> str:
    answers = {"Given answer": case.answer}
    if case.other is not None:
        answers = {"Answer 1": case.answer, "Answer 2": case.other}
    fields = {"Question": case.question, "Right answer": case.reference, **answers}
    return "\n".join(f"{name}: {text}" for name, text in fields.items())


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
