"""Transcription and translation of recordings of any length, and their captions."""

import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from voicetextblender.audio import SAMPLE_RATE, probe_duration
from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.engine import BusyError, Engine, Request
from voicetextblender.speech import Piece, find_speech, read_blocks
from voicetextblender.text import transcribe_instruction, translate_instruction

AHEAD = 8
"""Pieces of one recording that are with the engine at a time."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of a recording."""

    language: str = "en"
    """What is spoken."""
    target: str | None = None
    """Language to translate to; None to transcribe."""
    names: tuple[str, ...] = ()
    """Names and terms that may occur; see `Decoding.names`."""
    temperature: float = 0.0

    def instruction(self) -> str:
        """Return the sentence that asks for it. Raises ValueError for an unknown language."""
        if self.target is None:
            return transcribe_instruction(self.language)
        return translate_instruction(self.language, self.target)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a recording and what is said in it."""

    start: float
    """Seconds into the recording."""
    end: float
    text: str
    logprob: float = 0.0
    """Mean log-probability of its tokens: how sure the model is."""
    speech: float = 1.0
    """Mean probability that somebody speaks."""

    @property
    def compression(self) -> float:
        """How many times the text shrinks when packed; above 2.4 the model repeats itself."""
        return len(self.text.encode()) / len(zlib.compress(self.text.encode()))


@dataclass(frozen=True, slots=True)
class Transcript:
    """What is said in a recording."""

    file: str
    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]

    def to_json(self) -> dict[str, object]:
        """Return the transcript as JSON objects."""
        return asdict(self)


def transcribe(
    engine: Engine,
    recording: str | Path | bytes,
    task: Task = Task(),
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """Transcribe or translate a file or its bytes; `progress` is told the share that is done.

    Raises ValueError or FileNotFoundError for a file that cannot be read.
    """
    is_file = not isinstance(recording, bytes)
    length_s = probe_duration(recording) if is_file and progress else 0.0
    name = str(recording) if is_file else "recording"
    heard_s, segments = 0.0, []

    def blocks() -> Iterator[np.ndarray]:
        nonlocal heard_s
        for block in read_blocks(recording, name):
            heard_s += len(block) / SAMPLE_RATE
            yield block

    for segment in segments_of(engine, blocks(), task):
        segments.append(segment)
        if progress is not None and length_s:
            progress(min(1.0, segment.end / length_s))
    if progress is not None:
        progress(1.0)
    return join(name, task, heard_s, segments)


def segments_of(
    engine: Engine, blocks: Iterable[np.ndarray], task: Task = Task(), ahead: int = AHEAD
) -> Generator[Segment, None, None]:
    """Yield what is said in blocks of samples at 16 kHz, segment by segment, in order.

    Up to `ahead` pieces are with the engine; if the iteration is left, they are cancelled.
    """
    asked: deque[tuple[Piece, Request]] = deque()
    instruction = task.instruction()
    try:
        for piece in find_speech(blocks):
            asked.append((piece, _ask(engine, piece, instruction, task, patient=bool(asked))))
            if len(asked) >= ahead:
                yield from _answer(*asked.popleft())
        while asked:
            yield from _answer(*asked.popleft())
    finally:
        for _, request in asked:
            request.cancel()


def join(name: str, task: Task, duration_s: float, segments: Sequence[Segment]) -> Transcript:
    """Return the transcript that segments make."""
    text = " ".join(segment.text for segment in segments)
    language = task.target or task.language
    return Transcript(name, text, language, round(duration_s, 3), tuple(segments))


def _ask(engine: Engine, piece: Piece, instruction: str, task: Task, patient: bool) -> Request:
    """Hand a piece to the engine; a recording that has begun waits for its turn."""
    asked = Conversation("transcribe", (user(instruction, Audio("recording")),), "asr")
    # Nobody says more than 8 tokens a second for long; a model that loops is cut off.
    longest = 16 + int(8 * len(piece.samples) / SAMPLE_RATE)
    decoding = Decoding(
        longest,
        task.temperature,
        num_logprobs=0,
        names=task.names,
        ctc_weight=0.0 if task.target else engine.model.config.ctc_decoding,
        has_next=False,
    )
    while True:
        try:
            return engine.submit(asked, [piece.samples], decoding)
        except BusyError as busy:
            if not patient:
                raise
            time.sleep(min(busy.retry_after_s, 1.0))


def _answer(piece: Piece, request: Request) -> Iterator[Segment]:
    """Wait for a piece's text; a piece without any gives no segment."""
    chunks = list(request)
    text = "".join(chunk.text for chunk in chunks).strip()
    logprobs = [chunk.token.logprob for chunk in chunks if chunk.token]
    if text:
        start = piece.start / SAMPLE_RATE
        yield Segment(
            start=round(start, 3),
            end=round(start + len(piece.samples) / SAMPLE_RATE, 3),
            text=text,
            logprob=sum(logprobs) / len(logprobs),
            speech=piece.speech,
        )


def to_srt(transcript: Transcript) -> str:
    """Return SubRip captions."""
    return "".join(
        f"{n}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{s.text}\n\n"
        for n, s in enumerate(transcript.segments, start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """Return WebVTT captions."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{s.text}\n\n"
        for s in transcript.segments
    )


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
