"""What the LLM is given to hear: the adapter's output, read through the LLM's own embedding table.

Training aligns the two by CTC (train/loss.py), so the words are there before the LLM says any.

Shapes: S audio samples, A audio embeddings of all clips.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor


@torch.inference_mode()
def heard(model: SpeechLM, processor: SpeechLMProcessor, clips: Sequence[np.ndarray]) -> list[str]:
    """Return the words in clips (S,), float32 at 16 kHz, by greedy CTC; the LLM is not run."""
    features = [processor.features(clip).to(model.device) for clip in clips]
    embeds, lens = model.embed_audio(torch.cat(features), tuple(map(len, features)))
    best = F.linear(embeds.to(model.table.dtype), model.table).argmax(-1)  # (A,)
    return [processor.tokenizer.decode(_collapse(model, row)) for row in best.split(lens)]


def _collapse(model: SpeechLM, best: Tensor) -> list[int]:
    """Drop repeats and blanks."""
    tokens = torch.unique_consecutive(best).tolist()
    return [token for token in tokens if token != model.config.audio_token_id]
