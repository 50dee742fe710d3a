"""Whisper's log-mel features, as its own extractor gives them, in less time.

The extractor of transformers runs `torch.stft`, which lays frequency before time; here frames are
cut and transformed as they lie, a few hundred at a time, so that they stay in the cache.

Shapes: S samples, F feature frames, W samples of a window, M mel bins.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import WhisperFeatureExtractor

_CHUNK = 512  # frames transformed at a time


def log_mel(samples: Tensor, extractor: WhisperFeatureExtractor) -> Tensor:
    """Map (S,) samples, at least a window of them, to (F, M) features: one for each 10 ms."""
    width, hop = extractor.n_fft, extractor.hop_length
    window, filters = _constants(width, extractor.feature_size, extractor.sampling_rate)
    padded = F.pad(samples[None], (width // 2, width // 2), "reflect")[0]
    frames = padded.unfold(0, width, hop)[: len(samples) // hop]  # (F, W), a view
    mels = []
    for chunk in frames.split(_CHUNK):
        spectrum = torch.view_as_real(torch.fft.rfft(chunk * window))
        mels.append(spectrum.square_().flatten(1) @ filters)  # adds real and imaginary power too
    features = torch.cat(mels).clamp_(min=1e-10).log10_()
    return features.clamp_(min=features.max().item() - 8.0).add_(4.0).div_(4.0)


@lru_cache(maxsize=4)
def _constants(width: int, num_mel_bins: int, rate: int) -> tuple[Tensor, Tensor]:
    """Return the window (W,) and the mel filters (W + 2, M), one row twice for each frequency."""
    extractor = WhisperFeatureExtractor(num_mel_bins, sampling_rate=rate, n_fft=width)
    filters = torch.from_numpy(extractor.mel_filters).float()  # (W / 2 + 1, M)
    return torch.hann_window(width), filters.repeat_interleave(2, dim=0)
