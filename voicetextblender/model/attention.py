"""Attention over packed rows, for any transformers model, registered under one name.

transformers hands every attention call to the function registered as the model's
`attn_implementation`; ours looks for what `packing_of` made of the sequences' lengths, which our
model passes down through the layers, and lets each sequence attend to itself alone. Nothing is
padded. On a GPU the row goes through one kernel: FlashAttention over sequences of any length in
half precision, else FlexAttention, which skips what is masked; on a CPU they go one by one.

Shapes: H heads, N tokens of all S sequences, C channels of a head.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from voicetextblender.model.layout import ROUND, rounded

PACKED = "vtb_packed"
"""The name under which `packed_attention` is known to transformers."""

logger = logging.getLogger(__name__)

MATMUL_LIMIT = 1024
"""Longest sequence for which all scores are held at once."""

FLEX_CHANNELS = 16
"""Channels of a head from which on a GPU has kernels for packed rows."""

LONGEST = 2048
"""Tokens of a sequence that a GPU's kernels are prepared for; longer ones prepare them anew."""


def packing_of(seq_lens: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Return what layers are told of a packed row: `seq_lens`, or on a GPU `starts` and `longest`.

    `starts` is (S + 1,) int32: where each sequence begins, and the last one ends. `longest` is no
    less than the longest one, and as a rule the same for all rows: kernels are compiled for it.
    """
    if device.type == "cpu":
        return {"seq_lens": tuple(seq_lens)}
    starts = torch.tensor([0, *accumulate(seq_lens)], dtype=torch.int32)
    starts = starts.to(device, non_blocking=True)
    torch._dynamo.maybe_mark_dynamic(starts, 0)  # pyright: ignore[reportPrivateImportUsage]
    return {"starts": starts, "longest": max(LONGEST, 2 ** (max(seq_lens) - 1).bit_length())}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    seq_lens: tuple[int, ...] | None = None,
    starts: Tensor | None = None,
    longest: int = 0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Map (1, H, N, C) queries, keys and values to (1, N, H, C); `packing_of` makes what packs.

    Without it, it is transformers' own SDPA attention, mask and all; a single query, which
    continues a sequence, then looks back no further than `sliding_window`.
    """
    if starts is not None:
        is_causal = bool(module.is_causal)
        if dropout or query.shape[-1] < FLEX_CHANNELS:
            seq_lens = tuple(starts.diff().tolist())
        elif query.dtype in (torch.bfloat16, torch.float16):
            attended = flash_attention_over(
                query, key, value, starts, longest, is_causal, scaling, sliding_window
            )
            return attended.transpose(1, 2).contiguous(), None
        else:
            attended = flex_attention_over(
                query, key, value, starts, is_causal, scaling, sliding_window
            )
            return attended.transpose(1, 2).contiguous(), None
    if seq_lens is None:
        if sliding_window is not None and query.shape[2] == 1 and key.shape[2] > sliding_window:
            attention_mask = _newest(attention_mask, key.shape[2], sliding_window, query.device)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    lens = list(seq_lens)
    rows = zip(query.split(lens, 2), key.split(lens, 2), value.split(lens, 2), strict=True)
    return torch.cat(
        [
            _attend(q, k, v, bool(module.is_causal), scaling, dropout, sliding_window)
            for q, k, v in rows
        ],
        dim=2,
    ).transpose(1, 2).contiguous(), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool,
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> Tensor:
    """Map one sequence's (1, H, n, C) queries, keys and values (fewer heads) to (1, H, n, C)."""
    n = query.shape[2]
    if query.requires_grad and query.device.type == "cpu" and n <= MATMUL_LIMIT and not dropout:
        return matmul_attention(query, key, value, is_causal, scaling, window)
    exceeds = is_causal and window is not None and n > window
    mask = _visible(n, window, query.device) if exceeds else None
    if query.is_cpu and not is_causal and n % ROUND:  # causal ones are the LLM's, to the bit
        query, key, value = (F.pad(x, (0, 0, 0, rounded(n) - n)) for x in (query, key, value))
        mask = (torch.arange(query.shape[2]) < n)[None, None, None]
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal and not exceeds,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )[:, :, :n]


def flash_attention_over(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    is_causal: bool,
    scaling: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Map (1, H, N, C) queries, keys and values (fewer heads), bf16 or fp16, to (1, H, N, C)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    before = window - 1 if is_causal and window is not None else -1
    attended = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(before, 0 if is_causal else -1),
    )
    assert isinstance(attended, Tensor)
    return attended.transpose(0, 1)[None]


def flex_attention_over(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    is_causal: bool,
    scaling: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Map (1, H, N, C) queries, keys and values (fewer heads) of a packed row to (1, H, N, C)."""
    attended = _flex(query.device.type)(
        query,
        key,
        value,
        block_mask=_block_mask(starts, query.shape[2], is_causal, window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, Tensor)
    return attended


@lru_cache(maxsize=1)
def _flex(device: str) -> Callable[..., object]:
    """Return FlexAttention, compiled where there is a kernel to gain."""
    if device == "cpu":
        return flex_attention
    logger.info("attention over packed rows: FlexAttention, compiled")
    return torch.compile(flex_attention)


# The layers of a step share it: the encoder's, and the LLM's with a window and without.
@lru_cache(maxsize=4)
def _block_mask(starts: Tensor, num: int, is_causal: bool, window: int | None) -> BlockMask:
    device = starts.device
    sequence = torch.searchsorted(starts, torch.arange(num, device=device), right=True)

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = sequence[query] == sequence[key]
        if is_causal:
            seen = seen & (key <= query)
        if is_causal and window is not None:
            seen = seen & (query - key < window)
        return seen

    return create_block_mask(visible, None, None, num, num, device=str(device))


def matmul_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool,
    scaling: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Attend by two matrix products, as `_attend` does; the fast way to train on a CPU.

    The backward pass of PyTorch 2.13's fused CPU kernel is 2 to 4 times as slow (docs/results.md).
    """
    heads, n, channels = query.shape[1:]
    groups = key.shape[1]  # query heads that share a key head are stacked along the queries
    stacked = query.reshape(groups, -1, channels)
    scores = torch.bmm(stacked, key[0].transpose(1, 2)) * (scaling or channels**-0.5)
    if is_causal:
        hidden = ~_visible(n, window, query.device)
        scores = scores.unflatten(1, (-1, n)).masked_fill(hidden, float("-inf")).flatten(1, 2)
    return torch.bmm(scores.softmax(-1), value[0]).view(1, heads, n, channels)


def _visible(n: int, window: int | None, device: torch.device) -> Tensor:
    """(n, n), true where a token may look: itself and the tokens before it, `window` in all."""
    visible = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    return visible if window is None else visible.triu(1 - window)


def _newest(mask: Tensor | None, num_keys: int, window: int, device: torch.device) -> Tensor:
    """(B, 1, 1, num_keys), true on the `window` last of each row's keys that `mask` shows."""
    if mask is None:
        mask = torch.ones(1, 1, 1, num_keys, dtype=torch.bool, device=device)
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) <= window)


AttentionInterface.register(PACKED, packed_attention)
