"""The loader: an endless stream of packed batches that can begin at any draw.

It knows nothing of models: the caller says how a conversation becomes a sample.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from voicetextblender.batch import Batch, Sample, collate
from voicetextblender.chat import Conversation
from voicetextblender.data.blend import Blend
from voicetextblender.data.records import Records

Encode = Callable[[Conversation, str, int], Sample]
"""Makes a sample from a conversation, its source's name, and the number of its draw."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimiser step is made from, and where the stream goes on after it."""

    batch: Batch
    next_draw: int


class Loader:
    """Draws conversations from a blend and packs them into rows of a token budget."""

    def __init__(
        self,
        names: Sequence[str],
        records: Sequence[Records],
        weights: Sequence[float],
        encode: Encode,
        *,
        tokens_per_batch: int,
        num_mel_bins: int,
        seed: int,
    ) -> None:
        self.names = tuple(names)
        self.records = tuple(records)
        self.blend = Blend([len(r) for r in records], weights, seed)
        self.encode = encode
        self.tokens_per_batch = tokens_per_batch
        self.num_mel_bins = num_mel_bins

    def steps(self, draw: int = 0, *, ahead: bool = False) -> Iterator[Step]:
        """Yield steps from draw number `draw` on; with `ahead`, one is made while one is used.

        Making ahead is for models on a GPU; on a CPU the two would share the same cores.
        """
        if not ahead:
            over = None
            while True:
                step, over = self._make(draw, over)
                draw = step.next_draw
                yield step
        with ThreadPoolExecutor(max_workers=1) as thread:
            coming = thread.submit(self._make, draw, None)
            while True:
                step, over = coming.result()
                coming = thread.submit(self._make, step.next_draw, over)
                yield step

    def _make(self, draw: int, sample: Sample | None) -> tuple[Step, Sample]:
        """Fill one row: draws follow each other until the next would exceed the budget.

        That next one is returned too, to be the first `sample` of the row that follows.
        """
        samples: list[Sample] = []
        tokens = 0
        while True:
            sample = sample or self._sample(draw)
            if samples and tokens + len(sample) > self.tokens_per_batch:
                return Step(collate(samples, self.num_mel_bins), draw), sample
            samples.append(sample)
            tokens += len(sample)
            draw, sample = draw + 1, None

    def _sample(self, number: int) -> Sample:
        draw = self.blend[number]
        conversation = self.records[draw.source][draw.index]
        sample = self.encode(conversation, self.names[draw.source], number)
        if len(sample) > self.tokens_per_batch:
            raise ValueError(
                f"conversation '{sample.id}' of source '{sample.source}' has {len(sample)} "
                f"positions, more than train.tokens_per_batch={self.tokens_per_batch}; "
                f"raise the budget or shorten the conversation"
            )
        return sample
