"""The loader: an endless stream of steps that can begin anywhere, for any number of ranks.

A step is `rows_per_step` packed rows. Row l of every step comes from lane l, to which the blend's
draws l, l + rows_per_step, … belong. A rank takes its share of the lanes and makes no sample of
another's, so what is in a step depends neither on the number of ranks nor on that of workers. It
knows nothing of models: the caller says how a conversation becomes a sample.
"""

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, count
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from queue import Empty, Full
from typing import Literal

import torch
import torch.multiprocessing

from voicetextblender.batch import Batch, Sample, collate
from voicetextblender.chat import Conversation
from voicetextblender.data.blend import Blend
from voicetextblender.data.pack import Place, pack
from voicetextblender.data.sources import Source

Encode = Callable[[Conversation, str, int], Sample | None]
"""Makes a sample from a conversation, its source's name, and the number of its draw, or None if
there is nothing in it for this stream."""

Start = Literal["fork", "forkserver"]

MAX_BROKEN_IN_A_ROW = 100
"""Draws that may fail one after the other, however many broken ones are allowed in all."""
AHEAD = 8
"""Draws that are being made for each worker, in each lane."""
AHEAD_STEPS = 2
"""Steps that wait to be used."""
LOOK_S = 2.0
"""How often processes that wait for each other look whether the other is still there."""
WORKER_KILLED = "a data worker was killed, perhaps for want of memory; lower train.workers"


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimiser step is made from, and where the stream goes on after it."""

    batches: tuple[Batch, ...]
    """This rank's packed rows."""
    places: Mapping[int, Place]
    """The place of each of this rank's lanes; those of all ranks together are the whole state."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A conversation that was drawn and cannot be used."""

    id: str
    reason: str
    is_broken: bool
    """False if it is only too long."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Samples by the number of their draw; it can be sent to another process."""

    sources: tuple[Source, ...]
    blend: Blend
    encode: Encode
    tokens_per_batch: int

    def __getitem__(self, number: int) -> Sample | Skipped | None:
        """Make the sample of a draw, or say why there is none; None if there need be none."""
        draw = self.blend[number]
        source = self.sources[draw.source]
        name = source.name
        try:
            conversation = source[draw.index]
            sample = self.encode(conversation, name, number)
        except (ValueError, OSError) as error:
            return Skipped(f"{name}/{draw.index}", str(error), is_broken=True)
        if sample is not None and len(sample) > self.tokens_per_batch:
            reason = (
                f"conversation '{sample.id}' of source '{name}' has {len(sample)} positions, more "
                f"than train.tokens_per_batch={self.tokens_per_batch}; raise the budget, shorten "
                f"the conversation, or set train.over_long=skip"
            )
            return Skipped(sample.id, reason, is_broken=False)
        return sample


class Loader:
    """Draws conversations from a blend and packs them into rows of a token budget."""

    def __init__(
        self,
        sources: Sequence[Source],
        encode: Encode,
        *,
        tokens_per_batch: int,
        num_mel_bins: int,
        seed: int,
        rows_per_step: int = 1,
        workers: int = 0,
        max_broken: int = 0,
        over_long: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        self.blend = Blend(
            [len(source) for source in sources],
            [source.weight for source in sources],
            seed,
            [source.epochs for source in sources],
        )
        self.draws = Draws(tuple(sources), self.blend, encode, tokens_per_batch)
        self.num_mel_bins = num_mel_bins
        self.rows_per_step = rows_per_step
        self.workers = workers
        self.max_broken = max_broken
        self.over_long = over_long
        self.broken: dict[str, str] = {}
        """Conversations that could not be used so far, with the reason."""
        self.too_long: dict[str, str] = {}
        """Conversations that fit no row and were left out."""
        self._broken_in_a_row = 0

    def steps(
        self,
        places: Mapping[int, Place] | None = None,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        ahead: bool = False,
    ) -> Iterator[Step]:
        """Yield a rank's steps from `places` on (those of other ranks' lanes do not matter).

        With `ahead`, steps are made while one is used: for models on a GPU; on a CPU the two would
        share the same cores. Raises ValueError if the ranks cannot share a step's rows.
        """
        if self.rows_per_step % num_ranks:
            raise ValueError(
                f"train.rows_per_step is {self.rows_per_step}, which {num_ranks} ranks cannot "
                f"share; make it a multiple of {num_ranks}"
            )
        at = {
            lane: (places or {}).get(lane, Place(lane))
            for lane in range(rank, self.rows_per_step, num_ranks)
        }
        return self._steps_ahead(at) if ahead else self._steps(at)

    def _steps(self, at: Mapping[int, Place], start: Start = "forkserver") -> Generator[Step]:
        with ExitStack() as stack:
            workers = None
            if self.workers:
                workers = _workers(self.draws, self.workers, start)
                stack.callback(workers.shutdown, cancel_futures=True)
            lanes = {lane: self._lane(place, workers) for lane, place in at.items()}
            while True:
                rows = {lane: next(lanes[lane]) for lane in lanes}
                yield Step(
                    tuple(
                        collate(row, self.num_mel_bins, self.draws.tokens_per_batch)
                        for row, _ in rows.values()
                    ),
                    {lane: place for lane, (_, place) in rows.items()},
                )

    def _steps_ahead(self, at: Mapping[int, Place]) -> Generator[Step]:
        """Yield the steps that a process of its own makes.

        A thread of this one would hold up Python in the thread that keeps a GPU at work.
        """
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.draws.encode.__module__])
        made = context.Queue(AHEAD_STEPS)
        maker = context.Process(target=_make_steps, args=(self, at, made))
        maker.start()
        try:
            while True:
                step, self.broken, self.too_long = _received(made, maker)
                yield step
        finally:
            maker.terminate()
            maker.join()

    def _lane(self, place: Place, workers: Executor | None) -> Iterator[tuple[list[Sample], Place]]:
        numbers = chain(place.waiting, count(place.draw, self.rows_per_step))
        made = (
            ((number, self.draws[number]) for number in numbers)
            if workers is None
            else _in_order(workers, numbers, AHEAD * self.workers)
        )
        samples = ((number, self._usable(sample)) for number, sample in made)
        return pack(samples, place, self.rows_per_step, self.draws.tokens_per_batch)

    def _usable(self, sample: Sample | Skipped | None) -> Sample | None:
        """Return the sample, or note why there is none. Raises ValueError past the limit."""
        if not isinstance(sample, Skipped):
            self._broken_in_a_row = 0
            return sample
        self._broken_in_a_row += 1
        if sample.is_broken:
            self.broken[sample.id] = sample.reason
            if len(self.broken) <= self.max_broken and self._broken_in_a_row <= MAX_BROKEN_IN_A_ROW:
                return None
            raise ValueError(
                sample.reason
                if not self.max_broken
                else f"{len(self.broken)} conversations could not be used, more than "
                f"train.max_broken={self.max_broken}; the last: {sample.reason}"
            )
        self.too_long[sample.id] = sample.reason
        if self.over_long == "refuse" or self._broken_in_a_row > MAX_BROKEN_IN_A_ROW:
            raise ValueError(sample.reason)
        return None


def _make_steps(loader: Loader, at: Mapping[int, Place], made: Queue) -> None:
    """Be the process that makes steps, until it is terminated or its parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to heed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    made.cancel_join_thread()
    torch.set_num_threads(1)
    with closing(loader._steps(at, "fork")) as steps:  # nothing runs here but this
        try:
            for step in steps:
                _put(made, (step, loader.broken, loader.too_long))
        except ValueError as error:
            _put(made, error)
            # Steps before it wait to be fetched from here; the parent terminates who failed.
            if (parent := multiprocessing.parent_process()) is not None:
                parent.join()


def _put(made: Queue, item: object) -> None:
    while (parent := multiprocessing.parent_process()) is not None and parent.is_alive():
        try:
            return made.put(item, timeout=LOOK_S)
        except Full:
            pass
    sys.exit()


def _received(made: Queue, maker: BaseProcess) -> tuple[Step, dict[str, str], dict[str, str]]:
    """Return the next step, and what was left out so far. Raises ValueError."""
    while True:
        try:
            item = made.get(timeout=LOOK_S)
        except Empty:
            if maker.is_alive():
                continue
            raise ValueError(WORKER_KILLED) from None
        except (EOFError, OSError):  # tensors are fetched from the process, which has ended
            raise ValueError(WORKER_KILLED) from None
        if isinstance(item, ValueError):
            raise item
        return item


_draws: Draws


def _workers(draws: Draws, num: int, start: Start) -> ProcessPoolExecutor:
    """Start processes that make samples.

    They are forked from a server, as this process may have threads and a GPU; one that has neither
    is forked itself, at once.
    """
    context = multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload([draws.encode.__module__])  # imported once, not by each
    return ProcessPoolExecutor(num, context, initializer=_begin, initargs=(draws,))


def _begin(draws: Draws) -> None:
    global _draws
    torch.set_num_threads(1)
    _draws = draws


def _sample(number: int) -> Sample | Skipped | None:
    return _draws[number]


def _in_order(
    workers: Executor, numbers: Iterable[int], depth: int
) -> Iterator[tuple[int, Sample | Skipped | None]]:
    """Yield each number with its sample, in order, while the workers make the next `depth`."""
    pending: deque[tuple[int, Future[Sample | Skipped | None]]] = deque()
    try:
        for number in numbers:
            pending.append((number, workers.submit(_sample, number)))
            if len(pending) > depth:
                first, future = pending.popleft()
                yield first, future.result()
    except BrokenProcessPool:
        raise ValueError(WORKER_KILLED) from None
    finally:
        for _, future in pending:
            future.cancel()
