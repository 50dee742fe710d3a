"""One progress bar, on standard error, for everything that takes more than two seconds."""

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

    def advance(share: float, words: str = "") -> None:
        nonlocal told
        bar.update(task, completed=share, words=words)
        if not console.is_terminal and int(10 * share) > told:
            told = int(10 * share)
            console.print(f"{title}: {10 * told}% {words}".rstrip(), highlight=False)

    with bar:
        yield advance
