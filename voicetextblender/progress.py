"""One progress bar, on standard error, for everything that takes more than two seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""Takes the share that is done, 0 to 1, and optionally a few words to show beside it."""


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """Show a bar while the block runs; where nobody looks, say how it goes at each tenth."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}% {task.fields[words]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(title, total=1.0, words="")
    told = 0
    begun: tuple[float, float] | None = None  # when, and with what share done

    def advance(share: float, words: str = "") -> None:
        nonlocal told, begun
        now = time.monotonic()
        begun = begun or (now, share)
        bar.update(task, completed=share, words=words)
        if not console.is_terminal and int(10 * share) > told:
            told = int(10 * share)
            pace = (share - begun[1]) / (now - begun[0]) if share > begun[1] else 0.0
            left = f", {(1 - share) / pace / 60:.1f} min left" if pace and told < 10 else ""
            console.print(f"{title}: {10 * told}% {words}".rstrip() + left, highlight=False)

    with bar:
        yield advance
