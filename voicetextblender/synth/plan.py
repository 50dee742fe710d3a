"""A plan: so many items, and how any of them are made. It can be estimated before it is run."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voicetextblender.chat import Conversation
from voicetextblender.synth.shards import PER_SHARD, Dropped, Made, make_shards
from voicetextblender.synth.workers import On

_CHARS_PER_TOKEN = 4.0  # of English, in the vocabularies of today

Attempt = Callable[[Sequence[int], int], Iterable[tuple[int, Made | Dropped]]]
"""Tries to make some items, for the n-th time, counted from 0."""


class Plan(Protocol):
    """Settings and sources of a run; picklable, and its `repr` says all that decides the bytes."""

    @property
    def num_items(self) -> int:
        """Items in all."""
        ...

    def __call__(self, items: Sequence[int]) -> Iterable[Made | Dropped]:
        """Make some items, each of them or what was wrong with it, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run comes to."""

    num_items: int
    dropped_share: float
    """Of the items that were tried."""
    audio_h: float
    num_tokens: int
    """Of text, in questions and answers."""
    run_s: float
    """With all workers."""

    def __str__(self) -> str:
        minutes = round(self.run_s / 60)
        return (
            f"{self.num_items} items, of which {self.dropped_share:.0%} may be dropped: "
            f"{self.audio_h:.2f} h of audio, about {self.num_tokens} tokens of text, "
            f"made in {minutes // 60} h {minutes % 60} min"
        )


def run(
    plan: Plan,
    out: Path,
    workers: int = 1,
    max_drop: float = 0.1,
    per_shard: int = PER_SHARD,
    same: Callable[[Conversation], str] | None = None,
    on: On = "processes",
) -> Iterator[tuple[int, int]]:
    """Make all items under `out`, yielding (items done, items in all).

    Read them back as `out/*.jsonl`; `out/report.json` counts what was dropped, and why. A run that
    was stopped goes on where it was. Raises ValueError if more than `max_drop` were dropped.
    """
    recipe = hashlib.sha256(repr(plan).encode()).hexdigest()[:16]
    return make_shards(
        out,
        plan.num_items,
        per_shard,
        plan,
        workers,
        recipe=recipe,
        max_drop=max_drop,
        same=same,
        on=on,
    )


def estimate(plan: Plan, workers: int = 1, num_tried: int = 16) -> Estimate:
    """Make a few items from all over a plan, keep nothing, and return what all will come to."""
    step = max(1, plan.num_items // num_tried)
    items = range(step // 2, plan.num_items, step)[:num_tried]
    list(plan(items[:1]))  # loads voices and models, which is done once
    begun = time.perf_counter()
    results = list(plan(items))
    spent_s = time.perf_counter() - begun
    made = [result.conversation for result in results if isinstance(result, Made)]
    num_chars = sum(len(turn.text) for conversation in made for turn in conversation.messages)
    audio_s = sum(clip.duration or 0.0 for conversation in made for clip in conversation.clips)
    scale = plan.num_items / len(items)
    return Estimate(
        num_items=plan.num_items,
        dropped_share=1 - len(made) / len(items),
        audio_h=audio_s * scale / 3600,
        num_tokens=round(num_chars * scale / _CHARS_PER_TOKEN),
        run_s=spent_s * scale / workers,
    )


def in_groups(
    items: Sequence[int], per_group: int, attempt: Attempt, num_attempts: int = 2
) -> Iterator[Made | Dropped]:
    """Yield what became of each item, in order; items of a group are tried together.

    What fails is tried again, with other draws, and then dropped with its last reason.
    """
    for first in range(0, len(items), per_group):
        group = items[first : first + per_group]
        results: dict[int, Made | Dropped] = {}
        for number in range(num_attempts):
            todo = [item for item in group if not isinstance(results.get(item), Made)]
            if todo:
                results |= attempt(todo, number)
        yield from (results[item] for item in group)
