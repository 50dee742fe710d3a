"""Generation: one generator of chunks for chat, transcription, server, page and evaluation.

Prompts are read in one packed pass; then all answers grow together, a token a step, and a row
leaves the batch when its answer ends.

Shapes: B answers that still grow, H key heads, L cached tokens of the longest row, C head channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import Cache

from voicetextblender.batch import Sample, collate
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is chosen; the default is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 draws from the distribution."""
    top_p: float = 1.0
    """Draw only among the likeliest tokens that together have this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises ValueError."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of one answer."""

    row: int
    """Number of the prompt that is being answered."""
    text: str
    """New text; empty while a character is not complete."""
    finished: Literal["stop", "length"] | None = None
    """Set on an answer's last chunk: the model ended it, or it grew too long."""


class RowCache(Cache):
    """Keys and values of several rows: filled from one packed pass, then a token at a time."""

    def __init__(self, seq_lens: Sequence[int], capacity: int) -> None:
        """Make room for `capacity` new tokens behind the longest prompt."""
        super().__init__(layers=[])
        self.lens = torch.tensor(list(seq_lens))
        self.capacity = max(seq_lens) + capacity
        self.filled = False
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **_: object
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values and return those to attend to.

        First come the packed prompts, (1, H, N, C), which attend within the pack; then one token of
        each row, (B, H, 1, C), which attends to the row so far: (B, H, L, C).
        """
        if not self.filled:
            self.keys.append(self._rows(key_states))
            self.values.append(self._rows(value_states))
            return key_states, value_states
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        rows = torch.arange(len(self.lens))
        keys[rows, :, self.lens] = key_states[:, :, 0]
        values[rows, :, self.lens] = value_states[:, :, 0]
        longest = int(self.lens.max()) + 1
        return keys[:, :, :longest], values[:, :, :longest]

    def mask(self, device: torch.device) -> Tensor:
        """(B, 1, 1, L): true on the tokens of each row, the one being added included."""
        steps = torch.arange(int(self.lens.max()) + 1)
        return (steps <= self.lens.unsqueeze(1))[:, None, None].to(device)

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these."""
        self.lens = self.lens[rows]
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]

    def _rows(self, packed: Tensor) -> Tensor:
        rows = packed.new_zeros(len(self.lens), packed.shape[1], self.capacity, packed.shape[3])
        for row, clip in zip(rows, packed[0].split(self.lens.tolist(), dim=1), strict=True):
            row[:, : clip.shape[1]] = clip
        return rows


class _Answer:
    """One growing answer: its tokens, and how much of their text has been given out."""

    def __init__(self, row: int, decoding: Decoding) -> None:
        self.row = row
        self.ids: list[int] = []
        self.given = 0
        self.random = torch.Generator().manual_seed(decoding.seed * 1_000_003 + row)


@torch.inference_mode()
def generate(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    samples: Sequence[Sample],
    decoding: Decoding = Decoding(),
) -> Iterator[Chunk]:
    """Yield the answers to prompts made with `processor.encode(…, purpose="answer")`.

    Chunks of different rows come mixed; each row's last one says why it finished.
    """
    if not samples:
        return
    batch = collate(samples, processor.num_mel_bins).to(model.device)
    audio = model.table.new_zeros(0, model.table.shape[1])
    if batch.clip_lens:
        audio, _ = model.embed_audio(batch.features, batch.clip_lens)
    cache = RowCache(batch.seq_lens, decoding.max_new_tokens)
    embeds = model.embed(batch.input_ids, audio)
    hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens, cache)
    cache.filled = True
    last = torch.tensor(batch.seq_lens, device=hidden.device).cumsum(0) - 1
    logits = model.project(hidden[0, last])  # (B, V)
    answers = [_Answer(row, decoding) for row in range(len(samples))]
    while True:
        growing: list[int] = []
        tokens = _choose(logits, answers, decoding)
        for place, (answer, token) in enumerate(zip(answers, tokens, strict=True)):
            chunk = _grow(answer, token, processor, decoding)
            if chunk.finished is None:
                growing.append(place)
            if chunk.text or chunk.finished:
                yield chunk
        if not growing:
            return
        if len(growing) < len(answers):
            answers = [answers[place] for place in growing]
            cache.keep(growing)
        new = torch.tensor([[answer.ids[-1]] for answer in answers], device=hidden.device)
        hidden = model.decode(
            model.llm.get_input_embeddings()(new),
            cache.lens.unsqueeze(1).to(hidden.device),
            None,
            cache,
            cache.mask(hidden.device) if len(answers) > 1 else None,
        )
        cache.lens = cache.lens + 1
        logits = model.project(hidden[:, 0])


def answers(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    samples: Sequence[Sample],
    decoding: Decoding = Decoding(),
) -> list[str]:
    """Return the whole answers to several prompts."""
    texts = [""] * len(samples)
    for chunk in generate(model, processor, samples, decoding):
        texts[chunk.row] += chunk.text
    return texts


def _grow(answer: _Answer, token: int, processor: SpeechLMProcessor, decoding: Decoding) -> Chunk:
    """Add a token to an answer and return the text that it completes."""
    if token in processor.prompter.stop_ids:
        return Chunk(answer.row, _new_text(answer, processor, is_last=True), "stop")
    answer.ids.append(token)
    is_last = len(answer.ids) == decoding.max_new_tokens
    text = _new_text(answer, processor, is_last)
    return Chunk(answer.row, text, "length" if is_last else None)


def _new_text(answer: _Answer, processor: SpeechLMProcessor, is_last: bool) -> str:
    """Return what the answer's tokens say beyond what was given out.

    A token may end within a character, which decodes to U+FFFD until the rest of it comes.
    """
    text = processor.tokenizer.decode(answer.ids, skip_special_tokens=True)
    if text.endswith("\ufffd") and not is_last:
        return ""
    new = text[answer.given :]
    answer.given = len(text)
    return new


def _choose(logits: Tensor, answers: list[_Answer], decoding: Decoding) -> list[int]:
    """Choose the next token of each row from (B, V) logits."""
    if decoding.temperature == 0:
        return logits.argmax(-1).tolist()
    probs = (logits.float() / decoding.temperature).softmax(-1).cpu()
    ordered, ids = probs.sort(-1, descending=True)
    # A token stays if those before it have less than top_p, so the likeliest always does.
    ordered[ordered.cumsum(-1) - ordered >= decoding.top_p] = 0
    places = [
        torch.multinomial(row, 1, generator=answer.random)
        for row, answer in zip(ordered, answers, strict=True)
    ]
    return ids.gather(1, torch.stack(places)).squeeze(1).tolist()
