"""Workers: who does the numbered tasks of a run, processes of this machine or Ray.

A task writes its result to files and returns a small account of it, so that it can be done
anywhere that sees the same folder, in any order, and again if its worker is killed.
"""

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Literal, TypeVar

On = Literal["processes", "ray"]
Result = TypeVar("Result")

_MOST_CRASHES = 2


def work(
    task: Callable[[int], Result], numbers: Sequence[int], workers: int, on: On = "processes"
) -> Iterator[tuple[int, Result]]:
    """Yield every number with its task's result, in the order in which they are done.

    On Ray the cluster is that of RAY_ADDRESS, or one of `workers` processes that lasts as long as
    this one. Raises what a task raises, and ValueError if workers die again and again.
    """
    return (_on_ray if on == "ray" else _in_processes)(task, numbers, workers)


def _in_processes(
    task: Callable[[int], Result], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Result]]:
    left = list(numbers)
    for _ in range(_MOST_CRASHES + 1):
        pool = ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),))
        try:
            working = {pool.submit(task, number): number for number in left}
            for finished in as_completed(working):
                result = finished.result()
                left.remove(working[finished])
                yield working[finished], result
            return
        except BrokenProcessPool:
            continue
        finally:
            pool.shutdown(cancel_futures=True)
    raise ValueError(
        f"worker processes were killed {_MOST_CRASHES + 1} times, most likely for want of memory; "
        f"use fewer of them and run it again: what is done is kept"
    )


def _end_with(parent: int) -> None:
    """Let a worker end when its parent has been killed, which nothing else tells it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(
    task: Callable[[int], Result], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Result]]:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ValueError(
            "Ray is not installed; run: pip install 'voicetextblender[ray]', or leave out --on ray"
        ) from None
    if not numbers:
        return
    if not ray.is_initialized():
        is_local = "RAY_ADDRESS" not in os.environ
        ray.init(
            num_cpus=workers if is_local else None,
            include_dashboard=False if is_local else None,
            log_to_driver=False,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items(list(numbers), override_num_blocks=len(numbers))
    outcomes = rows.map(lambda row: {"number": row["item"], "outcome": _tried(task, row["item"])})
    for row in outcomes.iter_rows():
        outcome = pickle.loads(row["outcome"])
        if isinstance(outcome, Exception):
            raise outcome
        yield row["number"], outcome


def _tried(task: Callable[[int], Result], number: int) -> bytes:
    """Return the pickled result, or what a user can cause: Ray would wrap it in its own errors."""
    try:
        return pickle.dumps(task(number))
    except (ValueError, OSError) as error:
        return pickle.dumps(error)
