"""The batch: all that the model sees, and the one place where data and model meet.

Everything in a batch is one packed row: conversations stand one behind the other, clips stand one
behind the other. Only the end of the row may be padded, a few positions that make all rows equal.

Shapes: N tokens of all conversations together (audio positions and padding included), A audio
positions, F feature frames of all clips together, M mel bins, K CTC target tokens of all clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE = -100
"""Label of a position that is not scored."""


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
    ctc_targets: list[list[int]]
    """Token ids of what is said in each clip; empty where that is not known."""

    def __len__(self) -> int:
        return len(self.ids)


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
    """(K,) int64."""
    ctc_lens: tuple[int, ...]
    """CTC target tokens of each clip; 0 where the clip's words are not known."""
    source_ids: Tensor
    """(N,) int64: index into `sources` for every token."""
    sources: tuple[str, ...]
    ids: tuple[str, ...]
    """The conversations' ids, for messages."""
    padding: int = 0
    """Positions at the end of the row that hold nothing: token 0, never scored."""

    @property
    def sources_of_conversations(self) -> list[str]:
        """The source of each conversation, in the order of `ids`."""
        starts = self.source_ids[self.position_ids == 0].tolist()
        return [self.sources[number] for number in starts[: len(self.ids)]]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""
        tensors = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in self.__slots__
            if isinstance(getattr(self, name), Tensor)
        }
        return replace(self, **tensors)


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
        ctc_targets=torch.tensor([token for target in targets for token in target]).long(),
        ctc_lens=tuple(map(len, targets)),
        source_ids=torch.tensor(source_of).repeat_interleave(torch.tensor(lens)),
        sources=sources,
        ids=tuple(sample.id for sample in samples),
        padding=padding,
    )
