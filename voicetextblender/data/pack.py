"""Packing: samples into rows of a token budget, each row filled from a pool of the next samples.

A row begins with the sample that has waited longest, so none waits for ever; what else goes into it
is what fills it best. It knows nothing of conversations, and `Place` is all there is to resume.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from voicetextblender.batch import Sample

POOL_ROWS = 2
"""The pool holds at least this many rows' worth of samples beside the row that is being filled."""
POOL_SAMPLES = 16
"""It also holds at least this many samples, so that long ones can be fitted together too."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream of draws stands after a row."""

    draw: int
    """Number of the next draw."""
    waiting: tuple[int, ...] = ()
    """Draws before it that are still in the pool, the oldest first."""


def pack(
    samples: Iterator[tuple[int, Sample | None]], place: Place, stride: int, budget: int
) -> Iterator[tuple[list[Sample], Place]]:
    """Yield rows of at most `budget` tokens, each with the place after it.

    `samples` come with the numbers of their draws: those that wait at `place`, then every
    `stride`-th from `place.draw` on; None is a draw that is left out.
    """
    pool: list[tuple[int, int, Sample]] = []  # the draw, the length and the sample
    draw, tokens = place.draw, 0
    while True:
        while len(pool) < POOL_SAMPLES or tokens < (1 + POOL_ROWS) * budget:
            number, sample = next(samples)
            draw = max(draw, number + stride)
            if sample is not None:
                pool.append((number, len(sample), sample))
                tokens += len(sample)
        first = pool[0][1]
        chosen = {0, *(1 + n for n in best_fit([n for _, n, _ in pool[1:]], budget - first))}
        row = [pool[n] for n in sorted(chosen)]
        pool = [waiting for n, waiting in enumerate(pool) if n not in chosen]
        tokens -= sum(n for _, n, _ in row)
        yield [sample for _, _, sample in row], Place(draw, tuple(number for number, _, _ in pool))


def best_fit(lens: Sequence[int], room: int) -> list[int]:
    """Return the places of the lengths whose sum comes nearest to `room` without exceeding it.

    Exact: bit t of `sums` says whether some of the lengths so far add up to t. Where several
    choices are as good, the earlier lengths are taken.
    """
    within = (1 << room + 1) - 1
    sums, before = 1, []  # `before` each length
    for n in lens:
        before.append(sums)
        sums = (sums | sums << n) & within
        if sums >> room:  # there is no better one
            break
    total = sums.bit_length() - 1
    chosen: list[int] = []
    for place in reversed(range(len(before))):
        if not before[place] >> total & 1:
            chosen.append(place)
            total -= lens[place]
    return chosen[::-1]
