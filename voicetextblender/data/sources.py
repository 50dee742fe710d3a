"""Sources of the blend, and how one is divided by file, language or task at a temperature."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voicetextblender.chat import Conversation
from voicetextblender.data.records import Label, Records


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Conversations that are drawn with one weight: all of some records, or one kind of them."""

    name: str
    records: Records
    weight: float = 1.0
    epochs: float | None = None
    """How often it may be gone through; None is for ever."""
    kind: str = ""
    """What they have in common, such as `de asr`."""
    indexes: np.ndarray | None = None
    """Their numbers in the records; None means all."""

    def __len__(self) -> int:
        return len(self.records if self.indexes is None else self.indexes)

    def __getitem__(self, index: int) -> Conversation:
        """Read conversation `index`. Raises ValueError that names file and line."""
        return self.records[index if self.indexes is None else int(self.indexes[index])]


def divide(source: Source, by: Sequence[Label], temperature: float) -> list[Source]:
    """Return a source of each kind that differs in `by`; together they have its weight.

    Level by level a kind has a share of size ** temperature: 1 keeps the shares of the data, 0
    makes kinds equal.
    """
    if not by:
        return [source]
    kinds, numbers = source.records.labels(by)
    shares = _shares(kinds, np.bincount(numbers), temperature)
    return [
        Source(
            source.name,
            source.records,
            source.weight * shares[n],
            source.epochs,
            " ".join(kind),
            np.flatnonzero(numbers == n),
        )
        for n, kind in enumerate(kinds)
    ]


def _shares(kinds: Sequence[tuple[str, ...]], sizes: np.ndarray, temperature: float) -> list[float]:
    size: Counter[tuple[str, ...]] = Counter()
    for kind, n in zip(kinds, sizes.tolist(), strict=True):
        for level in range(1, len(kind) + 1):
            size[kind[:level]] += n
    heated = {prefix: n**temperature for prefix, n in size.items()}
    total: Counter[tuple[str, ...]] = Counter()  # of what has the same parent
    for prefix, share in heated.items():
        total[prefix[:-1]] += share
    return [
        float(np.prod([heated[kind[:n]] / total[kind[: n - 1]] for n in range(1, len(kind) + 1)]))
        for kind in kinds
    ]
