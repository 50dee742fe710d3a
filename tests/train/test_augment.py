import numpy as np
import pytest
import torch

from voicetextblender.config import SpecAugmentConfig
from voicetextblender.train.augment import spec_augment

FEATURES = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))


def masked(seed, **config):
    nothing = {"freq_masks": 0, "time_masks": 0}
    settings = SpecAugmentConfig.model_validate(nothing | config)
    return spec_augment(FEATURES, settings, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_frequency_mask_is_one_band_no_wider_than_allowed(seed):
    changed = (masked(seed, freq_masks=1, freq_width=5) != FEATURES).all(0)
    (bands,) = torch.nonzero(changed, as_tuple=True)
    assert len(bands) <= 5
    assert len(bands) == 0 or bands[-1] - bands[0] == len(bands) - 1
    assert ((masked(seed, freq_masks=1, freq_width=5) != FEATURES).any(0) == changed).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_time_mask_is_one_stretch_no_longer_than_its_share(seed):
    changed = (masked(seed, time_masks=1, time_width=0.07) != FEATURES).all(1)
    (steps,) = torch.nonzero(changed, as_tuple=True)
    assert len(steps) <= 7
    assert len(steps) == 0 or steps[-1] - steps[0] == len(steps) - 1


def test_masks_of_every_width_and_place_occur():
    changed = [(masked(s, freq_masks=1, freq_width=3) != FEATURES).all(0) for s in range(200)]
    assert {int(c.sum()) for c in changed} == {0, 1, 2, 3}
    assert torch.stack(changed).any(0).all()


def test_what_is_masked_has_the_mean_of_the_clip():
    result = masked(0, time_masks=3, time_width=0.2)
    assert set(result[result != FEATURES].tolist()) == {FEATURES.mean().item()}


def test_the_same_randomness_gives_the_same_masks_and_the_input_stays():
    before = FEATURES.clone()
    config = {"freq_masks": 2, "time_masks": 10, "time_width": 0.05}
    assert torch.equal(masked(1, **config), masked(1, **config))
    assert not torch.equal(masked(1, **config), masked(2, **config))
    assert torch.equal(FEATURES, before)


@pytest.mark.parametrize("shape", [(1, 80), (2, 8), (400, 8)])
def test_the_papers_masks_fit_clips_of_any_length(shape):
    result = spec_augment(torch.randn(shape), SpecAugmentConfig(), np.random.default_rng(0))
    assert result.shape == shape and torch.isfinite(result).all()


def test_no_mask_changes_nothing():
    assert torch.equal(masked(0), FEATURES)
