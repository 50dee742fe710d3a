"""The blend: which conversation is drawn when, a pure function of the seed and the draw's number.

Draws come in blocks of `BLOCK`. In each block every source has its share of the draws, spread
evenly: its i-th draw falls at a random point of the i-th of as many equal stretches, so two sources
of equal weight never drift apart. A source is gone through in epochs, each shuffled by (seed,
source, epoch). Draw number k needs no history: a run resumes anywhere at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from voicetextblender.seeding import seeded

BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Draw:
    """Conversation number `index` of source number `source`, drawn for the `epoch`-th time."""

    source: int
    index: int
    epoch: int


class Blend:
    """A weighted, endless, reproducible order over several sources."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """Blend sources of `sizes` conversations by `weights` (any positive scale)."""
        self.sizes = tuple(sizes)
        self.quotas = _quotas(weights)
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled_block)
        self._epoch = lru_cache(maxsize=2 * len(self.sizes))(self._shuffled_epoch)

    def __getitem__(self, draw: int) -> Draw:
        """Return draw number `draw`, 0 or more."""
        block, place = divmod(draw, BLOCK)
        order, nth = self._order(block)
        source = int(order[place])
        drawn = block * int(self.quotas[source]) + int(nth[place])
        epoch, number = divmod(drawn, self.sizes[source])
        return Draw(source, int(self._epoch(source, epoch)[number]), epoch)

    def counts(self, draws: int) -> list[int]:
        """Return how often each source is drawn among the first `draws`."""
        block, place = divmod(draws, BLOCK)
        started = np.bincount(self._order(block)[0][:place], minlength=len(self.sizes))
        return [int(n) for n in block * self.quotas + started]

    def _shuffled_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the source of each draw of the block, and how often it was drawn before in it."""
        source = np.repeat(np.arange(len(self.sizes)), self.quotas)
        nth = np.concatenate([np.arange(quota) for quota in self.quotas])
        when = (nth + seeded(self.seed, "block", block).random(BLOCK)) / self.quotas[source]
        order = np.argsort(when, kind="stable")
        return source[order], nth[order]

    def _shuffled_epoch(self, source: int, epoch: int) -> np.ndarray:
        return seeded(self.seed, "epoch", source, epoch).permutation(self.sizes[source])


def _quotas(weights: Sequence[float]) -> np.ndarray:
    """Divide a block's draws by weight: at least one each; the largest takes the rounding."""
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    quotas = np.maximum(1, np.round(shares * BLOCK)).astype(np.int64)
    quotas[np.argmax(quotas)] += BLOCK - quotas.sum()
    return quotas
