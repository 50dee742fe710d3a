"""The retention alarm: while the model trains, how far it has gone from its LLM on a fixed text.

With its voice off the model is the LLM that it began from, bit for bit, so nothing else is loaded.

Shapes: N tokens of a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voicetextblender.config import RetentionConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.loss import kl_losses, token_losses

WINDOW = 512  # tokens: each is read by itself, so all but its first are scored


@dataclass(frozen=True, slots=True)
class Kept:
    """How the model reads a text beside the LLM that it began from."""

    perplexity: float
    base_perplexity: float
    kl: float
    """Mean divergence of its next tokens from the LLM's, in nats."""

    @property
    def rise(self) -> float:
        """By which share of the LLM's perplexity the model's is higher."""
        return self.perplexity / self.base_perplexity - 1


def read_windows(config: RetentionConfig, processor: SpeechLMProcessor) -> list[Tensor]:
    """Return the text's first tokens in windows of (N,) ids. Raises ValueError if there is none."""
    path = Path(config.text)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; train.retention.text names a file of plain text")
    text = path.read_text(encoding="utf-8")
    ids = processor.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    if len(ids) < 2:
        raise ValueError(f"{path}: {len(ids)} tokens; retention needs a text of two or more")
    return [w for w in torch.tensor(ids[: config.tokens]).split(WINDOW) if len(w) > 1]


@torch.no_grad()
def look(model: SpeechLM, windows: Sequence[Tensor]) -> Kept:
    """Read the text with the voice on and off."""
    was_training = model.training
    model.eval()
    sums, num = torch.zeros(3, device=model.device), 0
    for window in windows:
        ids = window.to(model.device)
        ours = _hidden(model, ids)
        with model.voice_off():
            base = _hidden(model, ids)
        for place, hidden in enumerate((ours, base)):
            sums[place] += token_losses(hidden, ids[1:], model.project).sum()
        sums[2] += kl_losses(base, ours, model.project).sum()
        num += len(ids) - 1
    model.train(was_training)
    ours_nll, base_nll, kl = (sums / num).tolist()
    return Kept(math.exp(ours_nll), math.exp(base_nll), kl)


def alarm(kept: Kept, config: RetentionConfig, step: int) -> str | None:
    """Return a warning if more was lost than the recipe allows."""
    if kept.rise <= config.limit:
        return None
    return (
        f"step {step}: perplexity of {config.text} is {kept.perplexity:.2f}, "
        f"{100 * kept.rise:.1f} % above the LLM's {kept.base_perplexity:.2f} and beyond "
        f"train.retention.limit={config.limit}; raise train.kl_weight, or lower train.lr.lora"
    )


def _hidden(model: SpeechLM, ids: Tensor) -> Tensor:
    """(N - 1, E): the states from which each token but the first is foretold."""
    embeds = model.llm.get_input_embeddings()(ids)
    positions = torch.arange(len(ids), device=ids.device)
    return model.decode(embeds[None], positions[None], (len(ids),))[0, :-1]
