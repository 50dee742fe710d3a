"""Voices: text in, speech out, the same for the same seed.

Synthetic speech is never to be mixed up with real speech: every conversation made with a voice says
so in its `meta.voice`.
"""

from functools import cache
from typing import Literal, Protocol

import numpy as np

VoiceName = Literal["hibari"]


class Voice(Protocol):
    """Anything that can speak."""

    name: str
    rate: int
    """Samples per second of what `speak` returns."""

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples in [-1, 1]. Raises ValueError for text it cannot speak."""
        ...


class HibariVoice:
    """hibari: one US voice that ships inside its package, 100 times as fast as speech."""

    name = "hibari"

    def __init__(self) -> None:
        try:
            from hibari import SAMPLE_RATE, Hibari
        except ModuleNotFoundError:
            raise ValueError(
                "the voice 'hibari' is not installed; run: pip install 'voicetextblender[voice]'"
            ) from None
        self.rate = SAMPLE_RATE
        self._hibari = Hibari()

    def speak(self, text: str, seed: int, speed: float = 1.0) -> np.ndarray:
        """Return (S,) float32 samples in [-1, 1]; `speed` 0.5 to 2.0. Raises ValueError."""
        samples = self._hibari(text, seed=seed, speed=speed)
        if not len(samples):
            raise ValueError(f"voice 'hibari' says nothing for {text!r}; it speaks English words")
        return np.asarray(samples, dtype=np.float32)


@cache
def load_voice(name: VoiceName) -> Voice:
    """Return a voice, loaded once per process. Raises ValueError if it is not installed."""
    return {"hibari": HibariVoice}[name]()
