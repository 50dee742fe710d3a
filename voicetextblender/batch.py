"""The batch: all that the model sees, and the one place where data and model meet.

Everything in a batch is one packed row: conversations stand one behind the other, clips stand one
behind the other. Only the end of the row may be padded, a few positions that make all rows equal.

Shapes: N tokens of all conversations together (audio positions and padding included), A audio
positions, F feature frames of all clips together, M mel bins, K CTC target tokens of all clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T", "Batch", "Twins")

IGNORE = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A conversation as the frozen LLM reads it, and where its next tokens are to be the same."""

    ids: list[int]
    at: list[int]
    """Positions in `ids` that are compared."""
    own: list[int]
    """The positions in the sample's own ids that they are compared with."""
    is_spoken: bool
    """Whether the sample has clips, which `ids` has as text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation, ready to be packed; lengths as in the legend, for it alone."""

    id: str
    source: str
    """Name of the blend's source that it was drawn from."""
    task: str
    ids: list[int]
    """Token ids; the audio token's id at every audio position."""
    labels: list[int]
    """The token that is to be predicted *at* each position (already shifted), or IGNORE."""
    features: list[Tensor]
    """(F, M) float32, one for each clip."""
    ctc_targets: list[list[int] | None]
    """Token ids of what is said in each clip; None where that is not known."""
    twin: Twin | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Twins:
    """The twins of a row's conversations, in a packed row of T tokens; C positions are compared."""

    input_ids: Tensor
    """(T,) int64."""
    position_ids: Tensor
    """(T,) int64: restart at 0 at each conversation."""
    seq_lens: tuple[int, ...]
    at: Tensor
    """(C,) int64: positions in this row."""
    own: Tensor
    """(C,) int64: positions in the batch's row."""
    is_spoken: Tensor
    """(C,) bool."""

    def to(self, device: torch.device | str) -> "Twins":
        """Return the twins with their tensors on `device`."""
        return _to(self, device)

    @staticmethod
    def nothing() -> "Twins":
        """Return a row of one token in which nothing is compared."""
        one, none = torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        return Twins(one, one, (1,), none, none, none.bool())


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations in one packed row."""

    input_ids: Tensor
    """(N,) int64."""
    labels: Tensor
    """(N,) int64: the token that follows, where it is supervised; IGNORE elsewhere."""
    position_ids: Tensor
    """(N,) int64: restart at 0 at each conversation."""
    seq_lens: tuple[int, ...]
    """Tokens of each conversation; attention never crosses from one to the next. Padding, if there
    is any, is the last of them."""
    features: Tensor
    """(F, M) float32: encoder input of all clips."""
    clip_lens: tuple[int, ...]
    """Feature frames of each clip."""
    ctc_targets: Tensor
    """(K,) int64; stays on the host, where it is prepared."""
    ctc_lens: tuple[int | None, ...]
    """CTC target tokens of each clip, 0 where nobody speaks; None where that is not known."""
    source_ids: Tensor
    """(N,) int64: index into `sources` for every token."""
    sources: tuple[str, ...]
    ids: tuple[str, ...]
    """The conversations' ids, for messages."""
    padding: int = 0
    """Positions at the end of the row that hold nothing: token 0, never scored."""
    extra_clips: int = 0
    """Clips, the last ones, that are heard by CTC alone and have no place in the row."""
    twins: Twins | None = None

    @property
    def words_of_clips(self) -> list[Tensor | None]:
        """The CTC targets of each clip; none where nobody speaks, None where that is not known."""
        words = iter(self.ctc_targets.split([n for n in self.ctc_lens if n is not None]))
        return [None if n is None else next(words) for n in self.ctc_lens]

    @property
    def sources_of_conversations(self) -> list[str]:
        """The source of each conversation, in the order of `ids`."""
        starts = self.source_ids[self.position_ids == 0].tolist()
        return [self.sources[number] for number in starts[: len(self.ids)]]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return replace(_to(self, device), ctc_targets=self.ctc_targets)


def with_silence(batch: Batch) -> Batch:
    """Return the batch with a short silent clip behind its own, in which there is nothing to hear.

    Where an encoder is sharded all ranks must go through it, those that drew text alone as well.
    """
    silence = batch.features.new_zeros(16, batch.features.shape[1])
    return replace(
        batch,
        features=torch.cat([batch.features, silence]),
        clip_lens=(*batch.clip_lens, len(silence)),
        ctc_lens=(*batch.ctc_lens, None),
        extra_clips=batch.extra_clips + 1,
    )


def with_clips(batch: Batch, heard: Batch) -> Batch:
    """Return the batch with another's clips behind its own, to be heard by CTC alone."""
    return replace(
        batch,
        features=torch.cat([batch.features, heard.features]),
        clip_lens=batch.clip_lens + heard.clip_lens,
        ctc_targets=torch.cat([batch.ctc_targets, heard.ctc_targets]),
        ctc_lens=batch.ctc_lens + heard.ctc_lens,
        extra_clips=batch.extra_clips + len(heard.clip_lens),
    )


def collate(samples: Sequence[Sample], num_mel_bins: int, length: int | None = None) -> Batch:
    """Pack samples into one row, in the order given, and pad it to `length` if that is given."""
    sources = tuple(sorted({sample.source for sample in samples}))
    features = [clip for sample in samples for clip in sample.features]
    targets = [target for sample in samples for target in sample.ctc_targets]
    lens = [len(sample) for sample in samples]
    source_of = [sources.index(sample.source) for sample in samples]
    ids = [token for sample in samples for token in sample.ids]
    labels = [label for sample in samples for label in sample.labels]
    padding = 0 if length is None else length - len(ids)
    if padding:
        lens.append(padding)
        source_of.append(0)
        ids += [0] * padding
        labels += [IGNORE] * padding
    return Batch(
        input_ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        position_ids=torch.cat([torch.arange(n) for n in lens]),
        seq_lens=tuple(lens),
        features=torch.cat(features) if features else torch.zeros(0, num_mel_bins),
        clip_lens=tuple(len(clip) for clip in features),
        ctc_targets=torch.tensor([token for target in targets for token in target or ()]).long(),
        ctc_lens=tuple(None if target is None else len(target) for target in targets),
        source_ids=torch.tensor(source_of).repeat_interleave(torch.tensor(lens)),
        sources=sources,
        ids=tuple(sample.id for sample in samples),
        padding=padding,
        twins=_twins(samples),
    )


def _twins(samples: Sequence[Sample]) -> Twins | None:
    """Pack the samples' twins; None if no sample has one."""
    begins = [0, *accumulate(map(len, samples))]
    found = [(b, s.twin) for b, s in zip(begins, samples, strict=False) if s.twin is not None]
    if not found:
        return None
    lens = [len(twin.ids) for _, twin in found]
    rows = [0, *accumulate(lens)]
    compared = [len(twin.at) for _, twin in found]
    spoken = torch.tensor([twin.is_spoken for _, twin in found])
    return Twins(
        input_ids=torch.tensor([token for _, twin in found for token in twin.ids]),
        position_ids=torch.cat([torch.arange(n) for n in lens]),
        seq_lens=tuple(lens),
        at=torch.tensor(
            [row + n for row, (_, twin) in zip(rows, found, strict=False) for n in twin.at]
        ),
        own=torch.tensor([begin + n for begin, twin in found for n in twin.own]),
        is_spoken=spoken.repeat_interleave(torch.tensor(compared)),
    )


def _to(packed: T, device: torch.device | str) -> T:
    """Return a dataclass of tensors, and of dataclasses of tensors, on `device`."""
    values = {field.name: getattr(packed, field.name) for field in fields(packed)}
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
        for name, value in values.items()
        if isinstance(value, Tensor | Twins)
    }
    return replace(packed, **moved)
