"""SpecAugment (Park et al. 2019): masks over the features of a clip."""

import numpy as np
from torch import Tensor

from voicetextblender.config import SpecAugmentConfig


def spec_augment(
    features: Tensor, config: SpecAugmentConfig, random: np.random.Generator
) -> Tensor:
    """Return (F, M) features with random mel bands and stretches of time set to their mean."""
    masked = features.clone()
    fill = features.mean()
    num_frames, num_mels = features.shape
    for _ in range(config.freq_masks):
        width = int(random.integers(0, min(config.freq_width, num_mels) + 1))
        at = int(random.integers(0, num_mels - width + 1))
        masked[:, at : at + width] = fill
    for _ in range(config.time_masks):
        width = int(random.integers(0, int(config.time_width * num_frames) + 1))
        at = int(random.integers(0, num_frames - width + 1))
        masked[at : at + width] = fill
    return masked
