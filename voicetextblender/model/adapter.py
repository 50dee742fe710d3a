"""The modality adapter: speech-encoder frames in, language-model embeddings out.

Clips stand one behind the other in a packed row, so a clip never sees another, nor padding.

Shapes: T encoder frames of all clips, U embeddings of all clips (each clip has
ceil(frames / stack)), D encoder width, W adapter width, E language-model width, H heads.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voicetextblender.model.encoder import alike, most_padding
from voicetextblender.model.layout import (
    Lens,
    begins,
    complete,
    lay_apart,
    places,
    rounded,
    row_size,
    take,
)


def stack_frames(frames: Tensor, lens: Lens, stack: int) -> tuple[Tensor, Lens]:
    """Join every `stack` frames of a clip: (T, D) to (U, stack * D), and the clips' new lengths.

    A clip's last, incomplete group is completed with zeros and kept, so no speech is lost.
    """
    new_lens = tuple(-(-n // stack) for n in lens)
    at = places(lens, tuple(stack * n for n in begins(new_lens)), frames.device)
    return lay_apart(frames, at, stack * sum(new_lens)).view(-1, stack * frames.shape[1]), new_lens


class MlpAdapter(nn.Module):
    """Stack and project (Ultravox, LLaVA): the form that llama.cpp can run."""

    def __init__(self, encoder_width: int, llm_width: int, width: int, stack: int) -> None:
        super().__init__()
        self.stack = stack
        self.norm = nn.LayerNorm(stack * encoder_width)
        self.up = nn.Linear(stack * encoder_width, width)
        self.norm_out = nn.LayerNorm(width)
        self.down = nn.Linear(width, llm_width)

    def forward(self, frames: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
        """Map (T, D) frames to (U, E) embeddings, and the clips' lengths to their new lengths."""
        groups, lens = stack_frames(frames, lens, self.stack)
        row, _ = complete(groups, lens)
        row = self.down(self.norm_out(F.silu(self.up(self.norm(row)))))
        return row[: len(groups)], lens


class ConformerAdapter(nn.Module):
    """The paper's adapter: stacked frames through Conformer layers, then one projection."""

    def __init__(
        self,
        encoder_width: int,
        llm_width: int,
        width: int,
        stack: int,
        layers: int,
        heads: int,
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stack = stack
        self.norm_in = nn.LayerNorm(stack * encoder_width)
        self.up = nn.Linear(stack * encoder_width, width)
        self.layers = nn.ModuleList(
            ConformerLayer(width, heads, kernel, dropout) for _ in range(layers)
        )
        self.down = nn.Linear(width, llm_width)

    def forward(self, frames: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
        """Map (T, D) frames to (U, E) embeddings, and the clips' lengths to their new lengths."""
        groups, lens = stack_frames(frames, lens, self.stack)
        row, row_lens = complete(groups, lens)
        hidden = self.up(self.norm_in(row))
        for layer in self.layers:
            hidden = layer(hidden, row_lens)
        return self.down(hidden)[: len(groups)], lens


class ConformerLayer(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward (Gulati et al. 2020).

    Where the paper normalises the convolution by batch statistics, this normalises each frame: a
    clip's embeddings then do not depend on its batch, in training as in use, and ranks agree.
    """

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(width, dropout)
        self.attention = RelativeAttention(width, heads, dropout)
        self.convolution = Convolution(width, kernel, dropout)
        self.feed_forward_out = FeedForward(width, dropout)
        self.norm = nn.LayerNorm(width)
        # Each branch begins by adding nothing, so the adapter begins as stack-and-project and
        # aligns within a hundred steps instead of four hundred (docs/results.md).
        for branch in (self.feed_forward_in, self.feed_forward_out):
            _zero(branch.out)
        _zero(self.attention.out)
        _zero(self.convolution.out)

    def forward(self, hidden: Tensor, lens: Lens) -> Tensor:
        """Map (U, W) to (U, W)."""
        hidden = hidden + 0.5 * self.feed_forward_in(hidden)
        hidden = hidden + self.attention(hidden, lens)
        hidden = hidden + self.convolution(hidden, lens)
        hidden = hidden + 0.5 * self.feed_forward_out(hidden)
        return self.norm(hidden)


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (U, W) to (U, W)."""
        wide = self.dropout(F.silu(self.wide(self.norm(hidden))))
        return self.dropout(self.out(wide))


class Convolution(nn.Module):
    """Gated depthwise convolution over time, zeros beyond a clip's ends."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm_conv = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, lens: Lens) -> Tensor:
        """Map (U, W) to (U, W)."""
        gated = F.glu(self.gate(self.norm(hidden)), dim=-1)
        # Clips are laid out with kernel - 1 zeros between them: one convolution then serves all
        # of them, and the outputs that straddle two clips are the ones left out.
        gap = self.depthwise.kernel_size[0] - 1
        apart = tuple(n + gap for n in lens)
        starts = begins(apart)
        at = places(lens, tuple(n + gap // 2 for n in starts), hidden.device)
        row = lay_apart(gated, at, row_size(sum(apart)))
        mixed = self.depthwise(row.T.unsqueeze(0)).squeeze(0).T
        mixed = take(mixed, places(lens, starts, hidden.device))
        return self.dropout(self.out(F.silu(self.norm_conv(mixed))))


class RelativeAttention(nn.Module):
    """Self-attention with relative positions, biases untied (Dai et al. 2019, Transformer-XL)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.position = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, width // heads))
        self.position_bias = nn.Parameter(torch.zeros(heads, width // heads))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, lens: Lens) -> Tensor:
        """Map (U, W) to (U, W); each clip attends to itself."""
        qkv = self.query_key_value(self.norm(hidden)).unflatten(-1, (3, self.heads, -1))
        longest = rounded(max(lens))
        offsets = relative_positions(longest, hidden.shape[-1], hidden)  # (2 * longest - 1, W)
        position = self.position(offsets).unflatten(-1, (self.heads, -1))
        starts, attended, rows = begins(lens), [], []
        for group in alike(lens, most_padding(hidden.device)):
            group_lens = tuple(lens[n] for n in group)
            size = len(group), rounded(group_lens[0])  # the longest comes first
            row = places(group_lens, tuple(starts[n] for n in group), hidden.device)
            at = places(group_lens, tuple(range(0, math.prod(size), size[1])), hidden.device)
            padded = lay_apart(take(qkv, row), at, math.prod(size)).unflatten(0, size)
            out = self._attend(padded, group_lens, position, longest)
            attended.append(take(out.flatten(0, 1), at))
            rows.append(row)
        together = lay_apart(torch.cat(attended), torch.cat(rows), len(hidden))
        return self.dropout(self.out(together))

    def _attend(self, qkv: Tensor, lens: Sequence[int], position: Tensor, longest: int) -> Tensor:
        """Map padded clips, (B, n, 3, H, C), to (B, n, W); `position` (2 * longest - 1, H, C)."""
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, n, C)
        n = query.shape[2]
        near = position[longest - n : longest + n - 1].permute(1, 2, 0)  # (H, C, 2n - 1)
        by_offset = (query + self.position_bias.unsqueeze(1)) @ near
        scores = shift_to_keys(by_offset) / math.sqrt(query.shape[-1])
        if min(lens) < n:
            keys = torch.arange(n, device=qkv.device)
            ends = torch.tensor(lens).to(qkv.device, non_blocking=True)
            beyond = keys >= ends[:, None, None, None]
            scores = scores.masked_fill(beyond, float("-inf"))
        attended = F.scaled_dot_product_attention(
            (query + self.content_bias.unsqueeze(1)).to(value.dtype),
            key,
            value,
            attn_mask=scores.to(value.dtype),
        )
        return attended.transpose(1, 2).flatten(2)


def shift_to_keys(by_offset: Tensor) -> Tensor:
    """Turn scores by offset, (…, n, 2n - 1) from +(n - 1) down to -(n - 1), into (…, n, n) by key.

    Query i and key j have offset i - j, which stands at column n - 1 - i + j.
    """
    n, width = by_offset.shape[-2:]
    padded = F.pad(by_offset, (1, 0)).flatten(-2)
    moved = padded.unflatten(-1, (width + 1, n))[..., 1:, :]
    return moved.flatten(-2).unflatten(-1, (n, width))[..., :n]


def relative_positions(longest: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids (2 * longest - 1, width) of the offsets longest - 1 down to 1 - longest."""
    offsets = torch.arange(longest - 1, -longest, -1, device=like.device, dtype=torch.float32)
    steps = torch.arange(0, width, 2, device=like.device, dtype=torch.float32)
    angles = offsets.unsqueeze(1) * torch.exp(-math.log(10_000.0) * steps / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


def build_adapter(
    kind: Literal["conformer", "mlp"],
    encoder_width: int,
    llm_width: int,
    width: int,
    stack: int,
    layers: int,
    heads: int,
    kernel: int,
    dropout: float,
) -> ConformerAdapter | MlpAdapter:
    """Return the adapter that the settings describe."""
    if kind == "mlp":
        return MlpAdapter(encoder_width, llm_width, width, stack)
    return ConformerAdapter(encoder_width, llm_width, width, stack, layers, heads, kernel, dropout)


@torch.no_grad()
def match_scale(adapter: ConformerAdapter | MlpAdapter, embeddings: Tensor) -> None:
    """Draw the last projection so that audio embeddings start with the RMS of text `embeddings`.

    Its input is layer-normed (RMS 1), so weights of standard deviation rms / sqrt(W) give RMS rms.
    """
    rms = embeddings.float().pow(2).mean().sqrt().item()
    nn.init.normal_(adapter.down.weight, std=rms / math.sqrt(adapter.down.in_features))
    nn.init.zeros_(adapter.down.bias)


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
