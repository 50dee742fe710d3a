"""Retention: what the LLM still knows of text after it learned to listen.

The LLM that training began from is loaded afresh, as anybody would load it, and is compared with
our model as it is and with its voice switched off.

Shapes: N tokens of a window, V size of the vocabulary.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from voicetextblender.chat import Conversation, user
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import resolve
from voicetextblender.model.processing import SpeechLMProcessor

WINDOW = 512  # tokens: each is read by itself, so all but its first are scored

PROMPTS = (
    "What is the capital of France?",
    "What do bees make?",
    "Name three colours of the rainbow.",
    "What is the opposite of hot?",
    "Who wrote Romeo and Juliet?",
    "Write one sentence about the sea.",
    "Why do leaves fall in autumn? Answer in one sentence.",
    "Repeat exactly: The quick brown fox jumps over the lazy dog.",
)


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """A typed question and its two answers."""

    prompt: str
    base: str
    ours: str


@dataclass(frozen=True, slots=True)
class Retention:
    """Text before and after."""

    llm: str
    base_perplexity: float
    voice_off_perplexity: float
    ours_perplexity: float
    is_identical: bool
    """Whether with the voice off every logit is the base LLM's, bit for bit."""
    num_tokens: int
    """Scored tokens of the text."""
    answers: tuple[TextAnswer, ...]
    made: str
    """How the perplexities and answers were made."""
    text_sha256: str


_RETENTION = TypeAdapter(Retention)


def retention(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    text_path: Path,
    out: Path | None = None,
    *,
    prompts: Sequence[str] = PROMPTS,
    max_new_tokens: int = 60,
) -> Retention:
    """Compare our model with its base LLM on a text and on questions; write JSON to `out`.

    Raises ValueError for a model in training mode or a text of fewer than two tokens.
    """
    if model.training:
        raise ValueError("the model is in training mode, with dropout; call model.eval() first")
    text = text_path.read_text(encoding="utf-8")
    ids = processor.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    if len(ids) < 2:
        raise ValueError(f"{text_path}: {len(ids)} tokens; perplexity needs a text of two or more")
    windows = torch.tensor(ids, device=model.device).split(WINDOW)
    base, voice_off, ours, is_identical = _perplexities(model, windows)
    result = Retention(
        llm=model.config.model.llm,
        base_perplexity=base,
        voice_off_perplexity=voice_off,
        ours_perplexity=ours,
        is_identical=is_identical,
        num_tokens=sum(len(window) - 1 for window in windows),
        answers=text_answers(model, processor, prompts, max_new_tokens),
        made=f"{str(model.dtype).removeprefix('torch.')}, windows of {WINDOW} tokens; "
        f"answers greedy, at most {max_new_tokens} tokens",
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(_RETENTION.dump_json(result, indent=1))
    return result


def read_retention(path: Path) -> Retention | None:
    """Return what `retention` wrote, or None if there is no such file."""
    return _RETENTION.validate_json(path.read_bytes()) if path.is_file() else None


def text_answers(
    model: SpeechLM, processor: SpeechLMProcessor, prompts: Sequence[str], max_new_tokens: int
) -> tuple[TextAnswer, ...]:
    """Answer typed questions with the voice off, which is the base LLM, and with it on."""
    samples = [
        processor.encode(Conversation(prompt, (user(prompt),)), (), purpose="answer")
        for prompt in prompts
    ]
    decoding = Decoding(max_new_tokens)
    with model.voice_off():
        base = answers(model, processor, samples, decoding)
    ours = answers(model, processor, samples, decoding)
    return tuple(TextAnswer(*row) for row in zip(prompts, base, ours, strict=True))


@torch.inference_mode()
def _perplexities(model: SpeechLM, windows: Sequence[Tensor]) -> tuple[float, float, float, bool]:
    """Return base's, voice off's and our perplexity, and whether the first two's logits agree."""
    plain = AutoModelForCausalLM.from_pretrained(resolve(model.config.model.llm), dtype=model.dtype)
    nn.Module.to(plain.eval(), model.device)
    nll, num_tokens, is_identical = [0.0, 0.0, 0.0], 0, True
    for window in windows:
        base: Tensor = plain(input_ids=window[None], use_cache=False).logits  # (1, N, V)
        with model.voice_off():
            voice_off = model(window[None]).logits
        ours = model(window[None]).logits
        is_identical &= torch.equal(base, voice_off)
        for place, logits in enumerate((base, voice_off, ours)):
            losses = cross_entropy(logits[0, :-1].float(), window[1:], reduction="sum")
            nll[place] += losses.item()
        num_tokens += len(window) - 1
    perplexities = [math.exp(one / num_tokens) for one in nll]
    return perplexities[0], perplexities[1], perplexities[2], is_identical
