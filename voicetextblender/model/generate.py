"""Generation: one core that chat, transcription, server, page and evaluation share.

Prompts are read in one packed pass; then all answers grow together, a token a step. New ones join
between steps, and a row leaves when its answer ends.

Shapes: B answers that grow, V vocabulary.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from voicetextblender.batch import Sample
from voicetextblender.model.cache import PrefixCache
from voicetextblender.model.constrain import Names, Schema
from voicetextblender.model.decode import Decoder, ModuleDecoder
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.prefix import HeardPrefix
from voicetextblender.model.processing import SpeechLMProcessor

LIKELIEST = 512
"""Tokens among which `top_p` nearly always ends; sorting a whole vocabulary takes milliseconds."""

DRAFTED = 7
"""Tokens of a transcript that are guessed at a time; more are seldom all right."""

COLDEST = 1e-6
"""Temperature below which a float32 knows no difference."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is chosen; the default is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token; above 0 draws from the distribution."""
    top_p: float = 1.0
    """Draw only among the likeliest tokens that together have this probability."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """The answer ends before any of these."""
    num_logprobs: int | None = None
    """Report the log-probability of each token, and of so many that were likeliest."""
    schema: str | None = None
    """JSON schema that the answer follows."""
    names: tuple[str, ...] = ()
    """Names and terms that may occur; they become a little likelier."""
    ctc_weight: float = 0.0
    """For a transcript of one clip: the weight of CTC beside the LLM; see `model.prefix`."""
    has_next: bool = True
    """Whether the conversation may go on; of one that does not, only what comes before its first
    clip is kept, for others that begin so."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense. Raises ValueError."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.ctc_weight < 1:
            raise ValueError(f"ctc_weight is {self.ctc_weight}; it must be 0 (LLM alone) to 1")
        if "" in self.stop:
            raise ValueError("stop holds an empty text, which stands everywhere; leave it out")


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer and how likely it was."""

    text: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...]
    """The likeliest tokens in its place, with their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of one answer."""

    row: int
    """Number of the prompt that is being answered."""
    text: str
    """New text; empty while a character is not complete."""
    finished: Literal["stop", "length"] | None = None
    """Set on an answer's last chunk: the model ended it, or it grew too long."""
    token: Token | None = None
    """The token behind the text, where `Decoding.num_logprobs` asks for it."""


class _Answer:
    """One growing answer: its tokens, and how much of their text has been given out."""

    def __init__(self, row: int, decoding: Decoding, seed_row: int = 0) -> None:
        self.row = row
        self.decoding = decoding
        self.names: list[int] = []
        """What the LLM has read and written, as `PrefixCache` names it."""
        self.ids: list[int] = []
        self.random = torch.Generator().manual_seed(decoding.seed * 1_000_003 + seed_row)
        self.schema: Schema | None = None
        self.favoured: Names | None = None
        self.heard: HeardPrefix | None = None
        self.draft: list[int] = []
        """Tokens read in the last step behind the newest, in the hope that they come next."""
        self.logits = torch.empty(0)
        """(1 + drafted, V): what the next tokens are chosen from, as long as the draft is right."""
        self.held = ""
        """Text that may yet be the beginning of a stop text."""
        self.decoded: tuple[int, int] = (0, 0)
        """Where in `ids` the last given text begins and ends."""


class Generation:
    """Answers that grow together; the core of `generate` and of the server's engine."""

    def __init__(
        self,
        model: SpeechLM,
        processor: SpeechLMProcessor,
        decoder: Decoder,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.decoder = decoder
        self.prefixes = prefixes if decoder.can_continue else None
        self.answers: list[_Answer] = []

    @torch.inference_mode()
    def join(self, row: int, sample: Sample, decoding: Decoding, seed_row: int = 0) -> int:
        """Read one prompt, whose answer grows from the next step on; see `join_all`."""
        return self.join_all([(row, sample, decoding, seed_row)])

    @torch.inference_mode()
    def join_all(self, prompts: Sequence[tuple[int, Sample, Decoding, int]]) -> int:
        """Read prompts in one pass: each its row, sample, decoding and the row that seeds it.

        Returns how many tokens were in the prefix cache and not read again.
        """
        joining, reads = [], []
        for row, sample, decoding, seed_row in prompts:
            answer = _Answer(row, decoding, seed_row)
            if decoding.schema is not None:
                answer.schema = Schema(self.processor, decoding.schema)
            if decoding.names:
                answer.favoured = Names(self.processor, decoding.names)
            clip_lens = [
                -(-len(clip) // self.processor.features_per_embedding) for clip in sample.features
            ]
            answer.names = _names(sample, clip_lens, self.model.config.audio_token_id)
            joining.append(answer)
            reads.append(_Read(sample, clip_lens))
        num_reused = 0
        rows_before = len(self.decoder.cache.lens)
        if self.prefixes is not None:
            for place, (answer, read) in enumerate(zip(joining, reads, strict=True)):
                begin, pairs = self.prefixes.find(answer.names)
                if answer.decoding.ctc_weight:  # wants its clip's embeddings
                    begin = min(begin, len(_before_audio(answer.names)))
                begin = read.skip(begin, self.model.config.audio_token_id)
                for layer, kept in enumerate(pairs if begin else []):
                    self.decoder.cache.put(layer, rows_before + place, 0, kept[:begin])
                num_reused += begin
        embeds, audio = self._embed(reads)
        for answer, read, heard in zip(joining, reads, audio, strict=True):
            if answer.decoding.ctc_weight:
                if len(read.clip_lens) != 1:
                    raise ValueError(
                        f"ctc_weight is for a transcript of one clip, and here are "
                        f"{len(read.clip_lens)}; set it to 0"
                    )
                stops = self.processor.prompter.stop_ids
                answer.heard = HeardPrefix.of_clip(self.model, heard, stops)
        logits = self.decoder.read(
            embeds,
            [read.begin for read in reads],
            [len(read.sample) - read.begin for read in reads],
        )
        for answer, own in zip(joining, logits, strict=True):
            answer.logits = own.unsqueeze(0)
        self.answers += joining
        return num_reused

    @torch.inference_mode()
    def step(self) -> list[Chunk]:
        """Add a token or more to every answer and return what is new; those that ended are gone.

        What a clip's transcript will be is heard before the LLM says it. So such an answer has its
        next tokens read with the newest, and is given those that it would have chosen anyway.
        """
        chunks, ended = [], []
        tokens = _choose(torch.stack([a.logits[0] for a in self.answers]), self.answers)
        for place, (answer, token) in enumerate(zip(self.answers, tokens, strict=True)):
            chunks.append(_grow(answer, token, answer.logits[0], self.processor))
            for drafted, logits in zip(answer.draft, answer.logits[1:], strict=True):
                if chunks[-1].finished or answer.ids[-1] != drafted:
                    break
                self.decoder.cache.lens[place] += 1
                token = _choose_one(logits.cpu(), answer)
                chunks.append(_grow(answer, token, logits, self.processor))
            if chunks[-1].finished:
                ended.append(place)
        for place in reversed(ended):
            self._drop(place)
        if self.answers:
            self._read_next()
        return chunks

    def _read_next(self) -> None:
        """Read each answer's newest token, and those drafted behind it."""
        room = min(DRAFTED, self.decoder.most_tokens // len(self.answers) - 1)
        for answer in self.answers:
            answer.draft = answer.heard.draft(room) if answer.heard and room > 0 else []
        num = 1 + max(len(answer.draft) for answer in self.answers)
        rows = [[answer.ids[-1], *answer.draft] for answer in self.answers]
        new = torch.tensor([row + row[:1] * (num - len(row)) for row in rows])
        logits = self.decoder.step(new.to(self.model.device))
        for answer, row, own in zip(self.answers, rows, logits, strict=True):
            answer.logits = own[: len(row)]

    @torch.inference_mode()
    def leave(self, row: int) -> None:
        """Give up an answer, if it still grows."""
        for place, answer in enumerate(self.answers):
            if answer.row == row:
                self._drop(place)
                return

    def clear(self) -> None:
        """Give up all answers, whatever state they are in."""
        self.answers.clear()
        self.decoder.cache.clear()

    def _drop(self, place: int) -> None:
        """Take an answer's row out; the last takes its place, in the cache and here."""
        answer = self.answers[place]
        if self.prefixes is not None:
            has_next = answer.decoding.has_next
            names = answer.names + answer.ids if has_next else _before_audio(answer.names)
            self.prefixes.keep(names, self.decoder.cache, place)
        self.decoder.cache.drop(place)
        self.answers[place] = self.answers[-1]
        self.answers.pop()

    def _embed(self, reads: "Sequence[_Read]") -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the packed (N, E) embeddings of what is to be read, and each one's audio."""
        model = self.model
        ids = torch.tensor([token for read in reads for token in read.sample.ids[read.begin :]])
        clips = [clip for read in reads for clip in read.sample.features[read.num_known :]]
        audio = model.table.new_zeros(0, model.table.shape[1])
        if clips:
            features = torch.cat(clips).to(model.device)
            audio, _ = model.embed_audio(features, tuple(map(len, clips)))
        own = [sum(read.clip_lens[read.num_known :]) for read in reads]
        return model.embed(ids.to(model.device), audio), audio.split(own)


class _Read:
    """What of a prompt has to be read."""

    def __init__(self, sample: Sample, clip_lens: list[int]) -> None:
        self.sample = sample
        self.clip_lens = clip_lens
        self.begin = 0
        """Tokens that are known already."""
        self.num_known = 0
        """Clips among them."""

    def skip(self, begin: int, audio_id: int) -> int:
        """Begin behind `begin` tokens, or before the clip that this would cut; return where."""
        heard = sum(token == audio_id for token in self.sample.ids[:begin])
        ends = np.cumsum([0, *self.clip_lens])
        self.num_known = int(np.searchsorted(ends, heard, side="right")) - 1
        self.begin = begin - (heard - int(ends[self.num_known]))
        return self.begin


@torch.inference_mode()
def generate(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    samples: Sequence[Sample],
    decoding: Decoding | Sequence[Decoding] = Decoding(),
    decoder: Decoder | None = None,
) -> Iterator[Chunk]:
    """Yield the answers to prompts made with `processor.encode(…, purpose="answer")`.

    One `decoding` is for all of them, a sequence has one for each.

    Chunks of different rows come mixed; each row's last one says why it finished. Without a
    `decoder` (`build_decoder`) the model decodes as it is at the moment, in training too.
    """
    if not samples:
        return
    decoder = decoder or ModuleDecoder(model)
    decoder.cache.clear()  # the iteration before may have been left early
    generation = Generation(model, processor, decoder)
    each = [decoding] * len(samples) if isinstance(decoding, Decoding) else decoding
    generation.join_all(
        [
            (row, sample, how, row)
            for row, (sample, how) in enumerate(zip(samples, each, strict=True))
        ]
    )
    while generation.answers:
        yield from (c for c in generation.step() if c.text or c.finished or c.token)


def answers(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    samples: Sequence[Sample],
    decoding: Decoding | Sequence[Decoding] = Decoding(),
    decoder: Decoder | None = None,
) -> list[str]:
    """Return the whole answers to several prompts."""
    texts = [""] * len(samples)
    for chunk in generate(model, processor, samples, decoding, decoder):
        texts[chunk.row] += chunk.text
    return texts


def _names(sample: Sample, clip_lens: list[int], audio_id: int) -> list[int]:
    """Name a prompt's tokens for the prefix cache: ids, and for audio numbers below 0."""
    heard: list[int] = []
    for clip, num in zip(sample.features, clip_lens, strict=True):
        digest = hashlib.blake2b(clip.numpy().tobytes(), digest_size=7).digest()
        first = -1 - int.from_bytes(digest, "big")
        heard += range(first, first - num, -1)
    audio = iter(heard)
    return [next(audio) if token == audio_id else token for token in sample.ids]


def _before_audio(names: list[int]) -> list[int]:
    """Return the names of what comes before the first clip."""
    return names[: next((n for n, name in enumerate(names) if name < 0), len(names))]


def _grow(answer: _Answer, token: int, logits: Tensor, processor: SpeechLMProcessor) -> Chunk:
    """Add a token to an answer and return the text that it completes."""
    decoding = answer.decoding
    seen = _token(token, logits, decoding.num_logprobs, processor)
    ends = token in processor.prompter.stop_ids
    if not ends:
        answer.ids.append(token)
        if answer.favoured is not None:
            answer.favoured.accept(token)
        if answer.heard is not None:
            answer.heard.accept(token)
        if answer.schema is not None:
            ends = answer.schema.accept(token)
    is_last = len(answer.ids) == decoding.max_new_tokens
    text = answer.held + _new_text(answer, processor, is_last or ends)
    answer.held = ""
    for stop in decoding.stop:
        if stop in text:
            text, ends = text[: text.index(stop)], True
    if ends:
        return Chunk(answer.row, text, "stop", seen)
    if is_last:
        return Chunk(answer.row, text, "length", seen)
    if decoding.stop:
        keep = _begun(text, decoding.stop)
        text, answer.held = text[: len(text) - keep], text[len(text) - keep :]
    return Chunk(answer.row, text, None, seen)


def _begun(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that begins a stop text."""
    longest = max(map(len, stops)) - 1
    ends = (n for n in range(min(longest, len(text)), 0, -1))
    return next((n for n in ends if any(s.startswith(text[-n:]) for s in stops)), 0)


def _new_text(answer: _Answer, processor: SpeechLMProcessor, is_last: bool) -> str:
    """Return what the answer's tokens say beyond what was given out.

    A token may end within a character, which decodes to U+FFFD until the rest of it comes. Tokens
    are decoded together with those before them, without which some tokenizers drop a space.
    """
    begin, end = answer.decoded
    before = processor.tokenizer.decode(answer.ids[begin:end], skip_special_tokens=True)
    text = processor.tokenizer.decode(answer.ids[begin:], skip_special_tokens=True)
    if text.endswith("\ufffd") and not is_last:
        return ""
    if len(text) > len(before):
        answer.decoded = (end, len(answer.ids))
    return text[len(before) :]


def _token(
    token: int, logits: Tensor, num: int | None, processor: SpeechLMProcessor
) -> Token | None:
    """Return how likely a chosen token was, and the `num` likeliest; None if nobody asks."""
    if num is None:
        return None
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(num)
    texts = [processor.tokenizer.decode([other]) for other in [token, *ids.tolist()]]
    likeliest = tuple(zip(texts[1:], values.tolist(), strict=True))
    return Token(texts[0], float(logprobs[token]), likeliest)


def _choose(logits: Tensor, answers: Sequence[_Answer]) -> list[int]:
    """Choose the next token of each row from (B, V) logits."""
    if not any(a.decoding.temperature or a.schema or a.favoured or a.heard for a in answers):
        return logits.max(-1).indices.tolist()  # argmax of bfloat16 takes four times as long
    return [_choose_one(row, answer) for row, answer in zip(logits.cpu(), answers, strict=True)]


def _choose_one(logits: Tensor, answer: _Answer) -> int:
    """Choose one answer's next token from (V,) logits."""
    decoding = answer.decoding
    if answer.heard is not None:
        logits = answer.heard.weigh(logits, decoding.ctc_weight)
    if answer.favoured is not None:
        logits = answer.favoured.favour(logits)
    if answer.schema is not None:
        logits = logits.masked_fill(~answer.schema.allowed(len(logits)), float("-inf"))
    if decoding.temperature == 0:
        return int(logits.argmax())
    # The likeliest at 0, so that however small a temperature makes it certain, and none NaN.
    logits = logits.float() - logits.max()
    probs = (logits / max(decoding.temperature, COLDEST)).softmax(-1)
    if decoding.top_p == 1:
        return int(torch.multinomial(probs, 1, generator=answer.random))
    likeliest, ids = probs.topk(min(LIKELIEST, len(probs)))
    if likeliest.sum() < decoding.top_p:
        likeliest, ids = probs.sort(descending=True)
    # A token stays if those before it have less than top_p; the likeliest always does.
    likeliest[1:][likeliest.cumsum(-1)[:-1] >= decoding.top_p] = 0
    return int(ids[torch.multinomial(likeliest, 1, generator=answer.random)])
