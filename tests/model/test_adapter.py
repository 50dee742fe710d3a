import math

import pytest
import torch

from voicetextblender.model.adapter import (
    RelativeAttention,
    build_adapter,
    match_scale,
    relative_positions,
    shift_to_keys,
    stack_frames,
)

D, E, W, STACK = 6, 10, 16, 4
LENS = (9, 1, 4, 30)


@pytest.fixture(params=["conformer", "mlp"])
def adapter(request):
    torch.manual_seed(0)
    built = build_adapter(
        request.param, D, E, width=W, stack=STACK, layers=2, heads=2, kernel=5, dropout=0.0
    )
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return built


def test_a_clip_embeds_the_same_alone_and_in_any_packed_batch(adapter):
    frames = torch.randn(sum(LENS), D)
    packed, lens = adapter(frames, LENS)
    for clip, embeds in zip(frames.split(LENS), packed.split(lens), strict=True):
        alone, alone_lens = adapter(clip, (len(clip),))
        torch.testing.assert_close(embeds, alone)
        assert alone_lens == (len(embeds),)
    backwards, _ = adapter(torch.cat(frames.split(LENS)[::-1]), LENS[::-1])
    torch.testing.assert_close(torch.cat(backwards.split(lens[::-1])[::-1]), packed)


def test_a_clip_has_one_embedding_for_each_group_of_frames(adapter):
    embeds, lens = adapter(torch.randn(sum(LENS), D), LENS)
    assert lens == tuple(math.ceil(n / STACK) for n in LENS)
    assert embeds.shape == (sum(lens), E)


def test_the_last_group_of_a_clip_is_completed_with_zeros():
    frames = torch.arange(1.0, 7.0).unsqueeze(1)  # two clips of three frames
    groups, lens = stack_frames(frames, (3, 3), stack=2)
    assert groups.tolist() == [[1, 2], [3, 0], [4, 5], [6, 0]]
    assert lens == (2, 2)


def test_the_gradient_reaches_every_weight(adapter):
    adapter(torch.randn(sum(LENS), D), LENS)[0].pow(2).sum().backward()
    idle = [n for n, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_embeddings_start_at_the_scale_of_the_text(adapter):
    torch.manual_seed(2)
    table = 0.136 * torch.randn(500, E)
    wide = build_adapter("mlp", D, 64, width=W, stack=1, layers=0, heads=1, kernel=1, dropout=0.0)
    match_scale(wide, table)
    embeds, _ = wide(torch.randn(200, D), (200,))
    assert embeds.pow(2).mean().sqrt().item() == pytest.approx(0.136, rel=0.15)
    match_scale(adapter, table)
    embeds, _ = adapter(torch.randn(200, D), (200,))
    assert embeds.pow(2).mean().sqrt().item() == pytest.approx(0.136, rel=0.3)  # 160 weights


def test_relative_attention_is_the_attention_of_the_paper():
    """Transformer-XL, score by score: (q + u) k + (q + v) r, with r looked up by offset."""
    torch.manual_seed(0)
    heads, channels, lens = 2, W // 2, (5, 3)
    module = RelativeAttention(W, heads, dropout=0.0)
    torch.nn.init.normal_(module.content_bias)
    torch.nn.init.normal_(module.position_bias)
    hidden = torch.randn(sum(lens), W)
    expected = []
    for clip in hidden.split(lens):
        n = len(clip)
        q, k, v = module.query_key_value(module.norm(clip)).view(n, 3, heads, channels).unbind(1)
        out = torch.zeros(n, heads, channels)
        for h in range(heads):
            scores = torch.zeros(n, n)
            for i in range(n):
                for j in range(n):
                    offset = torch.tensor([[float(i - j)]])
                    angles = offset * 10_000.0 ** (-torch.arange(0, W, 2) / W)
                    wave = torch.stack([angles.sin(), angles.cos()], -1).flatten()
                    r = module.position(wave).view(heads, channels)[h]
                    content = (q[i, h] + module.content_bias[h]) @ k[j, h]
                    scores[i, j] = content + (q[i, h] + module.position_bias[h]) @ r
            out[:, h] = (scores / math.sqrt(channels)).softmax(-1) @ v[:, h]
        expected.append(module.out(out.flatten(1)))
    torch.testing.assert_close(module(hidden, lens), torch.cat(expected))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_scores_by_offset_become_scores_by_key(n):
    offsets = torch.arange(n - 1, -n, -1.0).expand(3, n, 2 * n - 1)
    by_key = shift_to_keys(offsets)
    steps = torch.arange(n)
    assert torch.equal(by_key, (steps[:, None] - steps).float().expand(3, n, n))


def test_a_sinusoid_depends_on_the_offset_alone():
    short, long = relative_positions(3, W, torch.zeros(1)), relative_positions(7, W, torch.zeros(1))
    assert torch.equal(short, long[4:9])


def test_a_new_conformer_begins_as_stack_and_project():
    """Its branches add nothing at first, so it aligns as fast as the simpler adapter."""
    torch.manual_seed(0)
    new = build_adapter("conformer", D, E, W, STACK, layers=2, heads=2, kernel=3, dropout=0.0)
    frames = torch.randn(8, D)
    alone = new.up(new.norm_in(stack_frames(frames, (8,), STACK)[0]))
    norm = torch.nn.LayerNorm(W)
    torch.testing.assert_close(new(frames, (8,))[0], new.down(norm(norm(alone))))


def test_the_dropout_of_the_conformer_is_for_training_only():
    torch.manual_seed(0)
    noisy = build_adapter("conformer", D, E, W, STACK, layers=1, heads=2, kernel=3, dropout=0.5)
    for parameter in noisy.parameters():
        torch.nn.init.normal_(parameter)
    frames = torch.randn(8, D)
    assert not torch.equal(noisy(frames, (8,))[0], noisy(frames, (8,))[0])
    noisy.eval()
    assert torch.equal(noisy(frames, (8,))[0], noisy(frames, (8,))[0])
