"""The blend: which conversation is drawn when, a pure function of the seed and the draw's number.

Draws come in blocks of `BLOCK`. In each block every source has its share of the draws, spread
evenly: its i-th draw falls at a random point of the i-th of as many equal stretches, so two sources
of equal weight never drift apart. A source is gone through in epochs, each shuffled by (seed,
source, epoch); one that has given all it may leaves its share to the others. Draw number k needs no
history: a run resumes anywhere at once.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from voicetextblender.seeding import seeded

BLOCK = 16_384


class Draw(NamedTuple):
    """Conversation number `index` of source number `source`, drawn for the `epoch`-th time."""

    source: int
    index: int
    epoch: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Blocks that follow each other and are divided alike."""

    block: int
    """The first of them."""
    before: np.ndarray
    """(sources,) draws of each source before it."""
    quotas: np.ndarray
    """(sources,) draws of each source in each of its blocks."""


class Blend:
    """A weighted, endless, reproducible order over several sources."""

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        seed: int,
        epochs: Sequence[float | None] | None = None,
    ) -> None:
        """Blend sources of `sizes` conversations by `weights` (any positive scale).

        `epochs` is how often each may be gone through, None for ever. Raises ValueError if no
        source may go on for ever.
        """
        self.sizes = tuple(sizes)
        self.weights = np.asarray(weights, dtype=np.float64)
        self.seed = seed
        self.epochs = tuple(epochs or [None] * len(self.sizes))
        if None not in self.epochs:
            raise ValueError(
                "every source of the blend has 'epochs', so it would end before train.steps; "
                "leave them out of at least one source"
            )
        self._stretches = self._divide()
        self._order = lru_cache(maxsize=2)(self._shuffled_block)
        self._epoch = lru_cache(maxsize=2 * len(self.sizes))(self._shuffled_epoch)

    def __reduce__(self) -> "tuple[type[Blend], tuple[object, ...]]":
        """Travel to another process without what is only remembered."""
        return Blend, (self.sizes, self.weights, self.seed, self.epochs)

    def __getitem__(self, draw: int) -> Draw:
        """Return draw number `draw`, 0 or more."""
        block, place = divmod(draw, BLOCK)
        source_of, nth, before = self._order(block)
        source = source_of[place]
        drawn = before[source] + nth[place]
        epoch, number = divmod(drawn, self.sizes[source])
        return Draw(source, int(self._epoch(source, epoch)[number]), epoch)

    def counts(self, draws: int) -> list[int]:
        """Return how often each source is drawn among the first `draws`."""
        block, place = divmod(draws, BLOCK)
        source_of, _, before = self._order(block)
        started = np.bincount(np.array(source_of[:place], int), minlength=len(self.sizes))
        return np.add(before, started).tolist()

    def _divide(self) -> list[_Stretch]:
        """Divide all blocks: a stretch ends where a source has less to give than its quota."""
        left = np.array(
            [
                np.inf if epochs is None else max(1, round(size * epochs))
                for size, epochs in zip(self.sizes, self.epochs, strict=True)
            ]
        )
        block, before = 0, np.zeros(len(self.sizes), np.int64)
        stretches = []
        while True:
            quotas = _quotas(self.weights, left)
            stretches.append(_Stretch(block, before, quotas))
            ends = np.isfinite(left) & (quotas > 0)
            if not ends.any():
                return stretches
            num = int(np.min(left[ends] // quotas[ends]))
            block += num
            before = before + num * quotas
            left = left - num * quotas

    def _shuffled_block(self, block: int) -> tuple[list[int], list[int], list[int]]:
        """Return the source of each draw of the block, how often it was drawn before in it, and
        how often each source was drawn before it."""
        stretch = self._stretches[bisect_right(self._stretches, block, key=lambda s: s.block) - 1]
        quotas = stretch.quotas
        source = np.repeat(np.arange(len(self.sizes)), quotas)
        nth = np.concatenate([np.arange(quota) for quota in quotas])
        when = (nth + seeded(self.seed, "block", block).random(BLOCK)) / quotas[source]
        order = np.argsort(when, kind="stable")
        before = stretch.before + (block - stretch.block) * quotas
        return source[order].tolist(), nth[order].tolist(), before.tolist()

    def _shuffled_epoch(self, source: int, epoch: int) -> np.ndarray:
        return seeded(self.seed, "epoch", source, epoch).permutation(self.sizes[source])


def _quotas(weights: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Divide a block's draws by weight among the sources that have something `left`.

    Each gets at least one and at most what it has; what is over goes to the largest endless one.
    """
    weights = np.where(left > 0, weights, 0.0)
    shares = weights / weights.sum()
    quotas = np.maximum(1, np.round(shares * BLOCK)).astype(np.int64)
    quotas = np.minimum(quotas, left).astype(np.int64)
    quotas[np.argmax(np.where(np.isinf(left), shares, -1.0))] += BLOCK - quotas.sum()
    return quotas
