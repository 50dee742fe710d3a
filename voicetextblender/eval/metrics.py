"""Metrics: numbers that follow from sums over items, and what they might have been with others.

Every metric here, from word error rate to BLEU, is a function of sums. So any group of items can be
scored, and any score resampled, by one and the same code.

Shapes: I items, K sums, R resamplings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import jiwer
import numpy as np

from voicetextblender.text import normalise

_RESAMPLES = 2000
_AT_ONCE = 100  # resamplings


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a set's answers, before it is summed up."""

    name: str
    """Such as `wer`."""
    sums: np.ndarray
    """(I, K): what each item adds."""
    value: Callable[[np.ndarray], np.ndarray]
    """Maps (..., K) sums to (...) values."""
    scored_with: str
    """Scorer and normaliser, with their versions."""
    better: Literal["high", "low"] = "high"
    unit: Literal["%", ""] = "%"
    """`%`: the value is a fraction, shown as percent."""

    def of(self, places: Sequence[int]) -> "Metric":
        """Return the metric of some of the items alone."""
        return replace(self, sums=self.sums[list(places)])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval: what it might have been with other items like these."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Aligned:
    """A stretch in which words of the reference and of the hypothesis stand for each other."""

    is_equal: bool
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def mean(sums: np.ndarray) -> np.ndarray:
    """Map (..., 2) sums of points and of items (or of tokens) to points an item; NaN of none."""
    points, items = sums[..., 0], sums[..., 1]
    return np.divide(points, items, out=np.full(np.shape(points), np.nan), where=items > 0)


def error_rate(sums: np.ndarray) -> np.ndarray:
    """Map (..., 4) substitutions, deletions, insertions and length to errors a word."""
    return sums[..., :3].sum(-1) / sums[..., 3]


def estimate(metric: Metric, seed: int = 0) -> Estimate:
    """Return the value and its interval, by drawing whole items anew.

    Raises ValueError if there is no item.
    """
    if not len(metric.sums):
        raise ValueError(f"{metric.name}: no items, so no interval; score at least one")
    values = metric.value(_resampled(metric.sums, seed))
    return _estimate(metric.value(metric.sums.sum(0)), values)


def difference(ours: Metric, theirs: Metric, seed: int = 0) -> Estimate:
    """Return how far `ours` is above `theirs`; both must be of the same items in the same order.

    The items are drawn for both at once, so what is hard for both widens nothing.
    """
    assert len(ours.sums) == len(theirs.sums) and ours.name == theirs.name
    values = ours.value(_resampled(ours.sums, seed)) - theirs.value(_resampled(theirs.sums, seed))
    return _estimate(ours.value(ours.sums.sum(0)) - theirs.value(theirs.sums.sum(0)), values)


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Count each utterance's word errors: (I, 4), substitutions, deletions, insertions, words.

    The texts are compared as they are; a reference has words, and an empty hypothesis lost them.
    """
    return _edits(references, hypotheses, jiwer.process_words)


def character_edits(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Count each utterance's character errors likewise, spaces included."""
    return _edits(references, hypotheses, jiwer.process_characters)


def align(reference: str, hypothesis: str) -> list[Aligned]:
    """Align two texts word by word as `basic` compares them, but in their own spelling."""
    ref, ref_words = _spelt(reference)
    hyp, hyp_words = _spelt(hypothesis)
    if not ref or not hyp:  # jiwer takes no empty reference
        is_equal = not ref and not hyp
        return [Aligned(is_equal, tuple(filter(None, ref_words)), tuple(filter(None, hyp_words)))]
    chunks = jiwer.process_words(" ".join(ref), " ".join(hyp)).alignments[0]
    return [
        Aligned(
            chunk.type == "equal",
            tuple(filter(None, ref_words[chunk.ref_start_idx : chunk.ref_end_idx])),
            tuple(filter(None, hyp_words[chunk.hyp_start_idx : chunk.hyp_end_idx])),
        )
        for chunk in chunks
    ]


def _resampled(sums: np.ndarray, seed: int) -> np.ndarray:
    """Return (R, K): the sums of as many items, drawn with replacement, R times."""
    draws = _draws(len(sums), seed)
    parts = [draws[first : first + _AT_ONCE] @ sums for first in range(0, _RESAMPLES, _AT_ONCE)]
    return np.concatenate(parts)


@lru_cache(maxsize=4)  # the same for every metric, system and difference of a set
def _draws(number: int, seed: int) -> np.ndarray:
    """Return (R, I): how often each of `number` items is drawn."""
    random, rows = np.random.default_rng(seed), []
    for _ in range(0, _RESAMPLES, _AT_ONCE):
        drawn = random.integers(number, size=(_AT_ONCE, number))
        drawn += np.arange(_AT_ONCE)[:, None] * number
        counts = np.bincount(drawn.ravel(), minlength=_AT_ONCE * number)
        rows.append(counts.reshape(_AT_ONCE, number).astype(np.uint16))
    return np.concatenate(rows)


def _estimate(value: np.ndarray, values: np.ndarray) -> Estimate:
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (0.025, 0.975)) if len(values) else (value, value)
    return Estimate(float(value), float(low), float(high))


def _edits(
    references: Sequence[str],
    hypotheses: Sequence[str],
    process: Callable[[str, str], jiwer.WordOutput | jiwer.CharacterOutput],
) -> np.ndarray:
    rows = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        assert reference.strip()
        found = process(reference, hypothesis)
        length = found.hits + found.substitutions + found.deletions
        rows.append((found.substitutions, found.deletions, found.insertions, length))
    return np.array(rows, dtype=float).reshape(-1, 4)


def _spelt(text: str) -> tuple[list[str], list[str]]:
    """Return a text's normalised words, and beside each how it is spelt.

    Where one spelling gives several words ("twenty-one"), the first has it and the rest have "".
    """
    words, spelt = [], []
    for spelling in text.split():
        parts = normalise(spelling).split()
        words += parts
        spelt += [spelling, *[""] * (len(parts) - 1)] if parts else []
    return words, spelt
