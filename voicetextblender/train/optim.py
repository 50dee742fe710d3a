"""The optimiser: AdamW with a learning rate for each part, linear warmup, then a cosine."""

import math

import torch

from voicetextblender.config import TrainConfig
from voicetextblender.model.modeling import SpeechLM


def build_optimizer(model: SpeechLM, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over everything trained; matrices decay, vectors (norms, biases) do not."""
    peaks = config.lr.model_dump()
    groups = [
        {
            "params": [p for p in parameters if (p.ndim > 1) == is_matrix],
            "lr": 0.0,
            "peak": peaks[part],
            "part": part,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for part, parameters in model.trained_parts().items()
        for is_matrix in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, betas=config.betas, fused=True)


def lr_scale(step: int, config: TrainConfig) -> float:
    """Return the learning rate of step `step` (from 0) as a share of its peak."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - 1 - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.final_lr + (1 - config.final_lr) * cosine


def set_lr(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Set every part's learning rate to `scale` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = scale * group["peak"]
