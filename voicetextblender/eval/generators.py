"""Generators: sets that are made by a seeded program, by the name that a suite gives."""

from collections.abc import Callable
from pathlib import Path

Generator = Callable[[Path, int], None]
"""Writes `items.jsonl`, and the clips that it needs, to a folder; the seed decides all of it."""

GENERATORS: dict[str, Generator] = {}


def make(name: str, folder: Path, seed: int) -> None:
    """Make a set in a folder. Raises ValueError for a generator that is not known."""
    if name not in GENERATORS:
        raise ValueError(f"'{name}' is no generator; use one of {', '.join(GENERATORS)}")
    folder.mkdir(parents=True, exist_ok=True)
    GENERATORS[name](folder, seed)
