"""Conditions: the same clips clean, in noise, through a telephone, at another speed, and very long.

Each item says in `meta.condition` what was done to it, so a table by condition shows what breaks
the model. Clips without any speech have an empty reference: whatever is written down is invented.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from voicetextblender.audio import SAMPLE_RATE, save
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.records import load_clips
from voicetextblender.seeding import seeded
from voicetextblender.synth.augment import (
    add_noise,
    clip_peaks,
    make_noise,
    reverberate,
    through_band,
    through_mu_law,
    through_opus,
)
from voicetextblender.text import transcribe_instruction

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Maps (S,) float32 at SAMPLE_RATE to the same in a condition."""

PAUSE_S = 0.4
"""Between the clips that a long one is joined from."""


def music(length: int, random: np.random.Generator) -> np.ndarray:
    """Return `length` samples of plucked chords, at no particular level."""
    played, beat = np.zeros(length, dtype=np.float32), int(random.uniform(0.25, 0.5) * SAMPLE_RATE)
    for start in range(0, length, beat):
        seconds = np.arange(min(4 * beat, length - start)) / SAMPLE_RATE
        for semitones in random.choice([0, 3, 5, 7, 10, 12, 15], size=3, replace=False):
            pitch_hz = 196 * 2 ** (semitones / 12)
            partials = sum(np.sin(2 * np.pi * pitch_hz * n * seconds) / n**2 for n in range(1, 6))
            played[start : start + len(seconds)] += (partials * np.exp(-3 * seconds)).astype("f4")
    return played


def _noisy(snr_db: float, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return add_noise(samples, make_noise("pink", len(samples), random), snr_db)


def _telephone(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return through_mu_law(through_band(samples, SAMPLE_RATE, 300, 3400), SAMPLE_RATE)


def _at_speed(speed: float, samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Play faster or slower; the pitch changes with it."""
    return soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)


CONDITIONS: dict[str, Change] = {
    "clean": lambda samples, random: samples,
    **{f"noise {snr} dB": partial(_noisy, snr) for snr in (20, 10, 0)},
    "music 10 dB": lambda samples, random: add_noise(samples, music(len(samples), random), 10),
    "room 0.6 s": lambda samples, random: reverberate(samples, SAMPLE_RATE, 0.6, random),
    "clipped": lambda samples, random: clip_peaks(samples, 0.15),
    "telephone 8 kHz": _telephone,
    "Opus 13 kbit/s": lambda samples, random: through_opus(samples, SAMPLE_RATE, 1.0),
    **{f"speed {speed}": partial(_at_speed, speed) for speed in (0.8, 0.9, 1.1, 1.2, 1.3)},
}

NOTHING: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "zeros": lambda length, random: np.zeros(length, dtype=np.float32),
    "quiet room": lambda length, random: _loud(make_noise("pink", length, random), 1e-3),
    "white noise": lambda length, random: _loud(make_noise("white", length, random), 0.1),
    "brown noise": lambda length, random: _loud(make_noise("brown", length, random), 0.1),
    "hum": lambda length, random: _loud(np.sin(np.arange(length) * 2 * np.pi * 50 / 16e3), 0.1),
    "clicks": lambda length, random: (random.random(length) < 3 / SAMPLE_RATE).astype("f4"),
    "music": lambda length, random: _loud(music(length, random), 0.1),
}
"""Sounds of so many samples, in which nobody speaks."""


def conditions(source: Sequence[Conversation], folder: Path, seed: int) -> Iterator[Conversation]:
    """Put every clip into every condition; the clips are written to a folder."""
    for item in source:
        for condition, change in CONDITIONS.items():
            random = seeded(seed, condition, item.id)
            changed = [np.asarray(change(clip, random), np.float32) for clip in load_clips(item)]
            id = f"{item.id}-{condition.replace(' ', '-').replace('/', '-')}"
            clips = [
                _written(samples, folder, f"{id}-{number}", clip.text)
                for number, (samples, clip) in enumerate(zip(changed, item.clips, strict=True))
            ]
            meta = {**item.meta, "condition": condition}
            yield replace(item.with_clips(clips), id=id, meta=meta)


def nothing(number: int, folder: Path, seed: int) -> Iterator[Conversation]:
    """Clips of 1 to 20 s in which nobody speaks, to be transcribed; the right answer is none."""
    for place in range(number):
        kind = [*NOTHING][place % len(NOTHING)]
        random = seeded(seed, "nothing", place)
        samples = NOTHING[kind](int(random.uniform(1, 20) * SAMPLE_RATE), random)
        clip = _written(samples.astype(np.float32), folder, f"nothing-{place:03d}", "")
        yield Conversation(
            f"nothing-{place:03d}",
            (user(transcribe_instruction("en"), clip), assistant("")),
            "asr",
            "en",
            {"condition": kind, "synthetic": True, "check": [{"name": "no_speech"}]},
        )


def long(
    source: Sequence[Conversation], folder: Path, seed: int, seconds: float
) -> Iterator[Conversation]:
    """Join the clips of an ASR set, in a drawn order, to one of this length or a little more.

    Clips come again where there are too few.
    """
    random, pieces, texts, length = seeded(seed, "long"), [], [], 0.0
    while length < seconds:
        for place in random.permutation(len(source)):
            item = source[int(place)]
            (samples,) = load_clips(item)
            pieces += [samples, np.zeros(round(PAUSE_S * SAMPLE_RATE), dtype=np.float32)]
            texts.append("".join(part.text or "" for part in item.messages[-1].parts))
            length += len(samples) / SAMPLE_RATE + PAUSE_S
            if length >= seconds:
                break
    id, text, lang = f"long-{seconds:.0f}s", " ".join(texts), source[0].lang or "en"
    clip = _written(np.concatenate(pieces), folder, id, text)
    turns = (user(transcribe_instruction(lang), clip), assistant(text))
    yield Conversation(id, turns, "asr", lang, {**source[0].meta, "condition": f"{seconds:.0f} s"})


def _written(samples: np.ndarray, folder: Path, name: str, text: str | None) -> Audio:
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    loudest = float(np.abs(samples).max(initial=1.0))  # noise must not clip what it is added to
    save(folder / "clips" / f"{name}.flac", samples / np.float32(loudest))
    duration_s = round(len(samples) / SAMPLE_RATE, 3)
    return Audio(f"clips/{name}.flac", duration=duration_s, text=text)


def _loud(samples: np.ndarray, level: float) -> np.ndarray:
    """Return samples whose root mean square is `level`."""
    return samples * (level / np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
