import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, LlamaConfig, LlamaModel, WhisperConfig, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from voicetextblender.model.encoder import (
    ParakeetFrames,
    WhisperFrames,
    alike,
    encoder_from_config,
    encoder_from_pretrained,
)

LENS = (17, 1, 64, 40)
MELS = 8


@pytest.fixture(params=["whisper", "parakeet"])
def encoder(request, parts):
    return encoder_from_pretrained(str(parts / request.param), torch.float32).eval()


@pytest.fixture
def short_whisper():
    """Whisper with windows of 20 feature frames."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        num_mel_bins=MELS,
        max_source_positions=10,
    )
    return WhisperEncoder(config).eval()


@torch.no_grad()
def test_a_clip_gives_the_same_frames_alone_and_in_any_batch(encoder):
    torch.manual_seed(0)
    features = torch.randn(sum(LENS), MELS)
    packed, lens = encoder(features, LENS)
    assert packed.shape == (sum(lens), encoder.width)
    for clip, frames in zip(features.split(LENS), packed.split(lens), strict=True):
        alone, alone_lens = encoder(clip, (len(clip),))
        assert alone_lens == (len(alone),) == (math.ceil(len(clip) / encoder.subsampling),)
        torch.testing.assert_close(frames, alone, atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(1, 3000), max_size=30))
def test_clips_that_are_padded_together_are_of_like_length(lens):
    groups = alike(tuple(lens), 0.05)
    assert sorted(n for group in groups for n in group) == list(range(len(lens)))
    for group in groups:
        padded = max(lens[n] for n in group) * len(group)
        assert sum(lens[n] for n in group) >= 0.95 * padded
    assert len(alike((100,) * 7, 0.05)) <= 1


@torch.no_grad()
def test_a_full_window_gives_the_frames_of_transformers_own_whisper(short_whisper):
    features = torch.randn(20, MELS)
    expected = short_whisper(features.T[None]).last_hidden_state[0]
    frames, lens = WhisperFrames(short_whisper)(features, (20,))
    assert lens == (10,)
    torch.testing.assert_close(frames, expected)


@torch.no_grad()
def test_thirty_seconds_give_the_frames_of_transformers_own_whisper(parts):
    theirs = WhisperModel.from_pretrained(parts / "whisper").eval()
    ours = encoder_from_pretrained(str(parts / "whisper"), torch.float32).eval()
    features = torch.randn(3000, MELS)
    expected = theirs.encoder(features.T[None]).last_hidden_state[0]
    torch.testing.assert_close(ours(features, (3000,))[0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_longer_clip_is_its_windows_joined(short_whisper):
    encoder = WhisperFrames(short_whisper)
    clip, other = torch.randn(47, MELS), torch.randn(5, MELS)
    frames, lens = encoder(torch.cat([clip, other]), (47, 5))
    assert lens == (24, 3)
    windows = [encoder(window, (len(window),))[0] for window in (*clip.split(20), other)]
    torch.testing.assert_close(frames, torch.cat(windows))


def test_an_encoder_is_built_from_its_configuration_alone(parts):
    assert isinstance(
        encoder_from_config(AutoConfig.from_pretrained(parts / "whisper")), WhisperFrames
    )
    assert isinstance(
        encoder_from_config(AutoConfig.from_pretrained(parts / "parakeet")), ParakeetFrames
    )


def test_a_model_of_another_kind_is_no_encoder(tmp_path):
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaModel(LlamaConfig(**shape, intermediate_size=8, vocab_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="kind 'llama' is not known; name a Whisper or Parakeet"):
        encoder_from_pretrained(str(tmp_path), torch.float32)
