from itertools import accumulate

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from voicetextblender.model import attention
from voicetextblender.model.attention import (
    flex_attention_over,
    matmul_attention,
    packed_attention,
    packing_of,
)

LENS = (3, 1, 7, 5)
N, HEADS, CHANNELS = sum(LENS), 4, 8


class FakeLayer(nn.Module):
    """What an attention function of transformers reads of the layer that calls it."""

    def __init__(self, is_causal, groups):
        super().__init__()
        self.is_causal = is_causal
        self.num_key_value_groups = groups


def queries_keys_values(key_heads=HEADS, n=N, requires_grad=False):
    torch.manual_seed(0)
    heads = (HEADS, key_heads, key_heads)
    return [torch.randn(1, h, n, CHANNELS).requires_grad_(requires_grad) for h in heads]


def reference(query, key, value, is_causal, window):
    """Every score by itself, as it stands in the books: (1, H, n, C) to (1, n, H, C)."""
    groups = HEADS // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    n = query.shape[2]
    scores = query @ key.transpose(-1, -2) / CHANNELS**0.5
    for i in range(n):
        for j in range(n):
            if is_causal and (j > i or (window is not None and j <= i - window)):
                scores[..., i, j] = float("-inf")
    return (scores.softmax(-1) @ value).transpose(1, 2)


CASES = [(True, None), (True, 4), (False, None)]


@pytest.mark.parametrize("trains", [False, True], ids=["fused", "matmul"])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize(("is_causal", "window"), CASES)
def test_each_sequence_of_a_packed_row_attends_as_if_it_were_alone(
    is_causal, window, key_heads, trains
):
    q, k, v = queries_keys_values(key_heads, requires_grad=trains)
    layer = FakeLayer(is_causal, HEADS // key_heads)
    packed, _ = packed_attention(
        layer, q, k, v, None, scaling=CHANNELS**-0.5, seq_lens=LENS, sliding_window=window
    )
    alone = [
        reference(*(x.detach() for x in row), is_causal, window)
        for row in zip(q.split(LENS, 2), k.split(LENS, 2), v.split(LENS, 2), strict=True)
    ]
    assert packed.shape == (1, N, HEADS, CHANNELS)
    torch.testing.assert_close(packed, torch.cat(alone, dim=1))


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize(("is_causal", "window"), CASES)
def test_two_matrix_products_give_the_values_and_gradients_of_the_fused_kernel(
    is_causal, window, key_heads, monkeypatch
):
    layer = FakeLayer(is_causal, HEADS // key_heads)
    weights = torch.randn(1, N, HEADS, CHANNELS)
    results = []
    for limit in (attention.MATMUL_LIMIT, 0):
        monkeypatch.setattr(attention, "MATMUL_LIMIT", limit)
        qkv = queries_keys_values(key_heads, requires_grad=True)
        out, _ = packed_attention(layer, *qkv, None, seq_lens=(N,), sliding_window=window)
        (out * weights).sum().backward()
        results.append([out.detach(), *(x.grad for x in qkv)])
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize(("is_causal", "window"), CASES)
def test_flex_attention_gives_the_values_of_the_other_ways(is_causal, window, key_heads):
    """Its gradients exist on a GPU alone."""
    layer = FakeLayer(is_causal, HEADS // key_heads)
    qkv = queries_keys_values(key_heads)
    theirs, _ = packed_attention(
        layer, *qkv, None, scaling=0.3, seq_lens=LENS, sliding_window=window
    )
    starts = torch.tensor([0, *accumulate(LENS)], dtype=torch.int32)
    ours = flex_attention_over(*qkv, starts, is_causal, 0.3, window)
    torch.testing.assert_close(ours.transpose(1, 2), theirs)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["flex", "flash"])
@pytest.mark.parametrize(("is_causal", "window"), CASES)
def test_a_packed_row_on_a_gpu_attends_as_on_a_cpu(is_causal, window, dtype):
    torch.manual_seed(0)
    layer = FakeLayer(is_causal, 2)
    qkv = [torch.randn(1, heads, 300, 64).to(dtype) for heads in (4, 2, 2)]
    results = []
    for device in ("cpu", "cuda"):
        on_device = [x.to(device, copy=True).requires_grad_() for x in qkv]
        packing = packing_of((100, 1, 150, 49), torch.device(device))
        out, _ = packed_attention(layer, *on_device, None, sliding_window=window, **packing)
        out.square().sum().backward()
        results.append([x.cpu().float() for x in (out.detach(), *(x.grad for x in on_device))])
    for ours, theirs in zip(*results, strict=True):  # TF32; 8 bits
        error = (ours - theirs).norm() / ours.norm()
        assert error < (1e-3 if dtype == torch.float32 else 1e-2)


def test_the_scale_of_the_scores_can_be_given():
    q, k, v = queries_keys_values()
    half = matmul_attention(q, k, v, True, scaling=0.5 * CHANNELS**-0.5)
    torch.testing.assert_close(half, matmul_attention(0.5 * q, k, v, True))
    layer = FakeLayer(True, 1)
    fused, _ = packed_attention(layer, q, k, v, None, scaling=0.5 * CHANNELS**-0.5, seq_lens=(N,))
    torch.testing.assert_close(fused.transpose(1, 2), half)


@pytest.mark.parametrize("mask", [None, torch.rand(1, 1, N, N) > 0.3], ids=["causal", "masked"])
def test_without_lengths_it_is_the_attention_of_transformers(mask):
    layer = FakeLayer(True, 2)
    q, k, v = queries_keys_values(2)
    ours, _ = packed_attention(layer, q, k, v, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(layer, q, k, v, mask, scaling=0.3)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("window", [None, 3])
def test_a_token_that_continues_rows_of_different_lengths_sees_what_it_sees_in_the_whole(window):
    layer = FakeLayer(True, 2)
    q, k, v = queries_keys_values(2)
    padded = [
        nn.utils.rnn.pad_sequence([x[0, :, :n].transpose(0, 1) for n in LENS]) for x in (k, v)
    ]
    keys, values = (x.permute(1, 2, 0, 3) for x in padded)  # (B, H, L, C), rubbish-free padding
    last = torch.cat([q[:, :, n - 1 : n] for n in LENS])
    mask = torch.arange(keys.shape[2]) < torch.tensor(LENS)[:, None, None, None]
    steps, _ = packed_attention(layer, last, keys, values, mask, sliding_window=window)
    for n, step in zip(LENS, steps, strict=True):
        whole, _ = packed_attention(
            layer, q[:, :, :n], k[:, :, :n], v[:, :, :n], None, seq_lens=(n,), sliding_window=window
        )
        torch.testing.assert_close(step[0], whole[0, -1])
    alone, _ = packed_attention(
        layer, last[2:3], k[:, :, :7], v[:, :, :7], None, sliding_window=window
    )
    torch.testing.assert_close(alone[0], steps[2])
