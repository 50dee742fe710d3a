"""Generators: sets that are made by a seeded program, by the name that a suite gives."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from voicetextblender.data.records import Records, spread, write_lines
from voicetextblender.eval.conditions import conditions, long, nothing
from voicetextblender.eval.probes import MADE_UP, REWORKED
from voicetextblender.eval.speak import spoken, write_spoken

_CHANGED: dict[str, Callable] = {
    "conditions": conditions,
    "one-minute": partial(long, seconds=60.0),
    "ten-minutes": partial(long, seconds=600.0),
}
FROM_A_FILE = ("spoken", *REWORKED, *_CHANGED)
"""Generators that make a set of another: of its clips, or, for `spoken`, of what is typed."""

GENERATORS = (*MADE_UP, "nothing", *FROM_A_FILE)


def make(
    name: str,
    folder: Path,
    seed: int,
    number: int = 40,
    voices: Sequence[str] = ("hibari",),
    source: str | None = None,
) -> None:
    """Write `items.jsonl`, and the clips that it needs, to a folder; the same for the same seed.

    `number` of items are made, or as many of `source` are used, evenly spaced. Raises ValueError
    for a generator that is not known, or one that lacks its source.
    """
    if name not in GENERATORS:
        raise ValueError(f"'{name}' is no generator; use one of {', '.join(GENERATORS)}")
    if (name in FROM_A_FILE) != (source is not None):
        needs = "needs 'path', a set to begin with" if source is None else "takes no 'path'"
        raise ValueError(f"the generator '{name}' {needs}; see docs/sets.md")
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    if source:
        records = Records(source)
        items = [records[place] for place in spread(len(records), number)]
    file = folder / "items.jsonl"
    if name in MADE_UP:
        write_spoken(list(MADE_UP[name](number, seed)), folder, voices, seed)
    elif name == "spoken":
        write_spoken([spoken(item) for item in items], folder, voices, seed)
    elif name == "nothing":
        write_lines(file, nothing(number, folder, seed))
    elif name in REWORKED:
        write_lines(file, REWORKED[name](items, seed))
    else:
        write_lines(file, _CHANGED[name](items, folder, seed))
