"""The training loss: next tokens of the answers, and CTC on what is heard.

Shapes: P supervised positions, E width of the LLM, V its vocabulary, A audio embeddings of all
clips, K CTC targets of all clips.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 1024
"""Positions whose logits exist at one time, so that the vocabulary does not decide the memory."""


def token_losses(hidden: Tensor, targets: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (P,) cross entropies in float32 for (P, E) hidden states and (P,) target ids.

    Logits are made `CHUNK` positions at a time and made again in the backward pass.
    """

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(project(hidden).float(), targets, reduction="none")

    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([checkpoint(losses, h, t, use_reentrant=False) for h, t in chunks])


def ctc_loss(
    embeds: Tensor,
    embed_lens: Sequence[int],
    targets: Tensor,
    target_lens: Sequence[int],
    table: Tensor,
    blank: int,
) -> tuple[Tensor, int]:
    """Return the summed CTC loss (Graves et al. 2006) of the clips, and their number of targets.

    The adapter's output is read through the LLM's own embedding table: (A, E) `embeds` of clips
    with `embed_lens`, against (K,) `targets` with `target_lens`, through the (V, E) `table`. The
    normaliser runs over the whole vocabulary, the alignment over the tokens of these clips alone.
    Clips without targets, and clips too short for them, do not count.
    """
    used, inverse = torch.unique(targets, return_inverse=True)
    columns = torch.cat([torch.tensor([blank], device=used.device), used])  # blank stands first

    def log_probs(embeds: Tensor) -> Tensor:
        logits = F.linear(embeds, table).float()
        return logits[:, columns] - logits.logsumexp(-1, keepdim=True)

    rows = torch.cat([checkpoint(log_probs, e, use_reentrant=False) for e in embeds.split(CHUNK)])
    kept = [
        (row, target + 1)
        for row, target in zip(
            rows.split(list(embed_lens)), inverse.split(list(target_lens)), strict=True
        )
        if len(target) and len(row) >= len(target) + _repeats(target)
    ]
    if not kept:
        return rows.sum() * 0.0, 0
    loss = F.ctc_loss(
        torch.nn.utils.rnn.pad_sequence([row for row, _ in kept]),
        torch.cat([target for _, target in kept]),
        torch.tensor([len(row) for row, _ in kept]),
        torch.tensor([len(target) for _, target in kept]),
        reduction="sum",
    )
    return loss, sum(len(target) for _, target in kept)


def _repeats(target: Tensor) -> int:
    """Return how many blanks must stand between equal neighbours."""
    return int((target[1:] == target[:-1]).sum())
