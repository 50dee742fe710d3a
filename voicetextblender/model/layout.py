"""Moving the clips of a packed row apart and together again, all of them in one call.

What is done to each clip by itself, such as zeros around it or a row of its own, is done by index
to all at once: a GPU would wait for each small call longer than it computes.

Shapes: T positions of all clips, P places where they are laid.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

Lens = tuple[int, ...]

ROUND = 32
"""Sequences on a CPU are completed to a multiple of this: odd ones are slower in bfloat16."""


def rounded(num: int) -> int:
    """Return the next multiple of `ROUND`."""
    return -(-num // ROUND) * ROUND


def row_size(num: int) -> int:
    """Return how long a row of `num` is made: eight sizes for each doubling, and few short ones.

    For each new number of rows of a product in bfloat16 oneDNN makes a kernel, half a megabyte, and
    keeps it.
    """
    step = max(ROUND, 1 << max(0, num.bit_length() - 4))
    return -(-num // step) * step


def complete(packed: Tensor, lens: Lens) -> tuple[Tensor, Lens]:
    """Add a clip of zeros that makes a row of (T, …), and its clips, as long as `row_size` says."""
    num = row_size(len(packed)) - len(packed)
    if not num or not packed.is_cpu:
        return packed, lens
    return torch.cat([packed, packed.new_zeros(num, *packed.shape[1:])]), (*lens, num)


def begins(lens: Sequence[int]) -> Lens:
    """Return where each clip begins in a packed row."""
    return tuple(accumulate(lens, initial=0))[:-1]


# The layers of a step ask for the same ones.
@lru_cache(maxsize=32)
def places(lens: Lens, starts: Lens, device: torch.device) -> Tensor:
    """(T,) int64: where each position is when clip `n`, of `lens[n]`, begins at `starts[n]`."""
    with torch.inference_mode(False):  # kept, and then perhaps asked for in training
        num, shift = torch.tensor([lens, starts]), torch.tensor(begins(lens))
        at = torch.arange(sum(lens)) + (num[1] - shift).repeat_interleave(num[0])
        return at.to(device, non_blocking=True)


def lay_apart(packed: Tensor, at: Tensor, num: int) -> Tensor:
    """Return (P, …) of zeros, P being `num`, with the rows of (T, …) at (T,) different places."""
    return packed.new_zeros(num, *packed.shape[1:]).index_copy(0, at, packed)


def take(apart: Tensor, at: Tensor) -> Tensor:
    """Return the rows of (P, …) at (T,) different places: `lay_apart` undone."""
    taken = _Take.apply(apart, at)
    assert isinstance(taken, Tensor)
    return taken


class _Take(torch.autograd.Function):
    """`index_select`, whose own backward pass adds atomically, as places might be the same."""

    @staticmethod
    def forward(ctx: Any, apart: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        ctx.num = len(apart)
        return apart.index_select(0, at)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (at,) = ctx.saved_tensors
        return lay_apart(grads[0], at, ctx.num), None
