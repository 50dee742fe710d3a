"""The optimiser: AdamW, a learning rate and a time to learn for each part, averaged weights."""

import math

import torch
from torch import Tensor

from voicetextblender.config import LearnConfig, TrainConfig
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
    return _warmth(step, config) * _cosine(step, config.steps, config)


def learning_parts(step: int, config: TrainConfig) -> set[str]:
    """Return the parts that learn in step `step`; the others are frozen."""
    return {part for part in LearnConfig.model_fields if _learns(part, step, config)}


def set_lr(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    """Set every part's learning rate for step `step`: its schedule begins when the part does."""
    for group in optimizer.param_groups:
        begin = _begin(group["part"], config)
        scale = _cosine(step - begin, config.steps - begin, config)
        group["lr"] = group["peak"] * _warmth(step - begin, config) * scale


class Ema:
    """A running average of what is trained: the weights of each step count less and less."""

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.clone() for name, tensor in state.items()}

    @torch.no_grad()
    def update(self, state: dict[str, Tensor], step: int) -> None:
        """Take in the weights after step `step`; the first ones outweigh those drawn at random."""
        decay = min(self.decay, (1 + step) / (10 + step))
        moving = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [self.state[name] for name in moving], [state[name] for name in moving], 1 - decay
        )
        for name in state.keys() - moving:
            self.state[name].copy_(state[name])  # a counter


def _begin(part: str, config: TrainConfig) -> int:
    """Return the step in which a part begins to learn."""
    begin = getattr(config.learn, part)[0]
    # Steps that skip the LLM give its low-rank updates no gradient.
    return max(begin, config.adapter_first) if part == "lora" else begin


def _learns(part: str, step: int, config: TrainConfig) -> bool:
    end = getattr(config.learn, part)[1]
    return step >= _begin(part, config) and (end is None or step < end)


def _warmth(since: int, config: TrainConfig) -> float:
    return min(1.0, (since + 1) / config.warmup) if config.warmup else 1.0


def _cosine(since: int, steps: int, config: TrainConfig) -> float:
    done = (since - config.warmup) / max(1, steps - 1 - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
    return config.final_lr + (1 - config.final_lr) * cosine
