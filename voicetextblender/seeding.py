"""Randomness that depends on a key alone: same key, same draws, whatever was drawn before."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


def seeded(*key: object) -> np.random.Generator:
    """Return a generator that depends on `key` alone, on every machine and in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def one_of(pool: Sequence[Choice], random: np.random.Generator) -> Choice:
    """Draw one, each as likely."""
    return pool[int(random.integers(len(pool)))]


def draw_seed(random: np.random.Generator) -> int:
    """Draw a seed for something that takes one, such as a voice or a language model."""
    return int(random.integers(2**31))
