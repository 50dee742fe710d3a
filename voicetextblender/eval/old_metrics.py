"""Metrics: functions of references and hypotheses, and nothing else.

Counts are kept for every utterance, so that any group of them can be scored and resampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import jiwer
import numpy as np

from voicetextblender.text import BASIC_VERSION, Normaliser, normalise

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edits that turn the references into the hypotheses, and the references' length."""

    substitutions: int
    deletions: int
    insertions: int
    length: int
    """Words of the references, or characters."""

    @property
    def errors(self) -> int:
        """Edits of all three kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors for each word (or character) of the references; above 1 if much was inserted."""
        return self.errors / self.length


@dataclass(frozen=True, slots=True)
class Aligned:
    """A stretch in which words of the reference and of the hypothesis stand for each other."""

    is_equal: bool
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def scored_with(normaliser: Normaliser = "basic") -> str:
    """Return what every score is stamped with: normaliser and scorer with their versions."""
    name = f"basic-{BASIC_VERSION}" if normaliser == "basic" else normaliser
    return f"normaliser {name}, jiwer {version('jiwer')}"


def utterance_word_errors(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Normaliser = "basic"
) -> list[ErrorCounts]:
    """Count the word errors of each utterance.

    Raises ValueError for a reference that has no words; an empty hypothesis has lost them all.
    """
    pairs = _pairs(references, hypotheses, normaliser)
    return [_counts(jiwer.process_words(ref, hyp), len(ref.split())) for ref, hyp in pairs]


def utterance_character_errors(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Normaliser = "basic"
) -> list[ErrorCounts]:
    """Count the character errors of each utterance, spaces included. Raises ValueError likewise."""
    pairs = _pairs(references, hypotheses, normaliser)
    return [_counts(jiwer.process_characters(ref, hyp), len(ref)) for ref, hyp in pairs]


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Return the counts of all utterances together."""
    rows = [(c.substitutions, c.deletions, c.insertions, c.length) for c in counts]
    return ErrorCounts(*map(sum, zip(*rows, strict=True))) if rows else ErrorCounts(0, 0, 0, 0)


def word_errors(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Normaliser = "basic"
) -> ErrorCounts:
    """Count the word errors of all utterances together. Raises ValueError for no words."""
    return total(utterance_word_errors(references, hypotheses, normaliser))


def character_errors(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Normaliser = "basic"
) -> ErrorCounts:
    """Count the character errors of all utterances together. Raises ValueError for no words."""
    return total(utterance_character_errors(references, hypotheses, normaliser))


def bootstrap_interval(counts: Sequence[ErrorCounts], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the error rate, by drawing whole utterances anew.

    Raises ValueError if there is no utterance.
    """
    if not counts:
        raise ValueError("no utterances, so no interval; score at least one")
    errors = np.array([c.errors for c in counts])
    lengths = np.array([c.length for c in counts])
    drawn = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    low, high = np.quantile(errors[drawn].sum(1) / lengths[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


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


def _pairs(
    references: Sequence[str], hypotheses: Sequence[str], normaliser: Normaliser
) -> list[tuple[str, str]]:
    pairs = []
    for number, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        words = normalise(reference, normaliser)
        if not words:
            raise ValueError(
                f"reference {number} ({reference!r}) has no words, so there is no error rate; "
                f"correct it or leave it out"
            )
        pairs.append((words, normalise(hypothesis, normaliser)))
    return pairs


def _counts(edits: jiwer.WordOutput | jiwer.CharacterOutput, length: int) -> ErrorCounts:
    return ErrorCounts(edits.substitutions, edits.deletions, edits.insertions, length)
