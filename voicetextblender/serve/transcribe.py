"""Transcription of whole files: split at quiet places, transcribe each piece, join."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model.generate import Decoding, answers
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.text import transcribe_instruction

LONGEST_S = 15.0
"""Longest piece, in seconds: what the training clips reach."""
QUIET_S = 0.3
"""Length of the stretch whose energy decides where to split."""
SILENCE = 1e-3
"""A piece whose RMS stays below this (-60 dB) has no words."""
BATCH = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a recording and what is said in it."""

    start: float
    """Seconds into the recording."""
    end: float
    text: str


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
    model: SpeechLM,
    processor: SpeechLMProcessor,
    path: str | Path,
    language: str = "en",
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """Transcribe a recording of any length; `progress` is told the share that is done.

    Raises ValueError or FileNotFoundError for a file that cannot be read.
    """
    samples = load(path)
    pieces = [piece for piece in split(samples) if is_loud(samples[piece])]
    segments: list[Segment] = []
    for first in range(0, len(pieces), BATCH):
        batch = pieces[first : first + BATCH]
        texts = _transcribe_pieces(model, processor, [samples[p] for p in batch], language)
        segments += [
            Segment(round(p.start / SAMPLE_RATE, 3), round(p.stop / SAMPLE_RATE, 3), text.strip())
            for p, text in zip(batch, texts, strict=True)
            if text.strip()
        ]
        if progress is not None:
            progress(min(1.0, (first + BATCH) / len(pieces)))
    return Transcript(
        file=str(path),
        text=" ".join(segment.text for segment in segments),
        language=language,
        duration_s=round(len(samples) / SAMPLE_RATE, 3),
        segments=tuple(segments),
    )


def split(samples: np.ndarray, longest_s: float = LONGEST_S) -> list[slice]:
    """Divide (S,) samples into pieces of at most `longest_s`, cut where it is quietest.

    Each cut is sought in the second half of the longest allowed piece; nothing is lost or doubled.
    """
    longest, window = int(longest_s * SAMPLE_RATE), int(QUIET_S * SAMPLE_RATE)
    pieces: list[slice] = []
    start = 0
    while len(samples) - start > longest:
        energy = np.cumsum(np.square(samples[start + longest // 2 : start + longest], dtype=float))
        quietest = int(np.argmin(energy[window:] - energy[:-window]))
        stop = start + longest // 2 + quietest + window // 2
        pieces.append(slice(start, stop))
        start = stop
    return [*pieces, slice(start, len(samples))]


def is_loud(samples: np.ndarray) -> bool:
    """Tell whether there is anything to hear."""
    return bool(len(samples)) and float(np.sqrt(np.mean(np.square(samples)))) > SILENCE


def _transcribe_pieces(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    pieces: Sequence[np.ndarray],
    language: str,
) -> list[str]:
    turn = user(transcribe_instruction(language), Audio("recording"))
    asked = Conversation("transcribe", (turn,), "asr", language)
    samples = [processor.encode(asked, [piece], purpose="answer") for piece in pieces]
    # Nobody says more than 8 tokens a second for long; a model that loops is cut off.
    longest = max(len(piece) for piece in pieces) / SAMPLE_RATE
    return answers(model, processor, samples, Decoding(max_new_tokens=16 + int(8 * longest)))


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
