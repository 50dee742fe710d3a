"""Speakers: who says a text, in which conditions, and who listens whether it can be understood."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.seeding import one_of
from voicetextblender.synth.augment import Meta, augment
from voicetextblender.synth.check import misheard
from voicetextblender.synth.voices import check_language, load_voice, say


@dataclass(frozen=True, slots=True)
class Speakers:
    """Voices and what is done to them; the same value says the same for the same draws."""

    voices: tuple[str, ...] = ("hibari",)
    """Named as in `synth.voices`; one that is named twice speaks twice as often."""
    lang: str = "en"
    warp: float = 0.0
    """Pitch and formants of each clip are moved together by up to this share, up or down: 0.2 makes
    many speakers of one voice, from a small one to a large one."""
    augment: float = 0.0
    """Strength of the speaking conditions, 0 (none) to 1; see `synth.augment`."""
    clean: float = 0.0
    """Share of the clips that are left without conditions."""
    check: str | None = None
    """Recogniser that must hear the same words, before augmentation: `whisper-base` or a URL."""
    max_wer: float = 0.3
    """Share of the words that `check` may hear otherwise."""

    def __post_init__(self) -> None:
        if not self.voices:
            raise ValueError("voices is empty; name at least one, such as 'hibari'")
        for voice in self.voices:
            check_language(voice, self.lang)
        for name, share in (("augment", self.augment), ("clean", self.clean), ("warp", self.warp)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it must be 0 (none) to 1")
        if not self.max_wer >= 0:
            raise ValueError(f"max_wer is {self.max_wer}; it must be a share, 0 or more")

    def draw_voice(self, random: np.random.Generator) -> str:
        """Return the name of a voice. Raises ValueError if it is not installed.

        That ends a run, and is no reason to drop what it was to say.
        """
        name = one_of(self.voices, random)
        load_voice(name)
        return name

    def say(
        self, voice: str, sentences: Sequence[str], random: np.random.Generator, warp: float
    ) -> np.ndarray:
        """Return (S,) float32 samples at SAMPLE_RATE of a voice, `warp` times as high as it is.

        Played at another rate, a voice has another pitch and another throat; its pace stays, as it
        speaks at another pace. Raises ValueError for text that the voice cannot speak.
        """
        speaker = load_voice(voice)
        samples = say(speaker, sentences, random, 1 / warp)
        return soxr.resample(samples, round(speaker.rate * warp), SAMPLE_RATE)

    def put_in_conditions(
        self, samples: np.ndarray, random: np.random.Generator, others: Sequence[np.ndarray] = ()
    ) -> tuple[np.ndarray, Meta | None]:
        """Return samples (S,) in drawn conditions, and those: None where the clip stays clean."""
        if not self.augment or (self.clean and random.random() < self.clean):
            return samples, None
        return augment(samples, SAMPLE_RATE, random, self.augment, others)

    def misheard(self, clips: Sequence[np.ndarray], texts: Sequence[str]) -> list[str | None]:
        """Return what `check` finds wrong with each clip, before conditions; None where nothing."""
        if not self.check:
            return [None] * len(clips)
        return misheard(clips, texts, self.check, self.lang, self.max_wer)


def draw_warp(most: float, random: np.random.Generator) -> float:
    """Return how many times as high a voice is to be: by the share `most` up or down at most."""
    return float(np.exp(random.uniform(-1, 1) * np.log1p(most)))
