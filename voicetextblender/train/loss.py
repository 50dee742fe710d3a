"""The training loss: next tokens of the answers, and CTC on what is heard.

Shapes: P supervised positions, E width of the LLM, V its vocabulary, A audio embeddings of all
clips, K CTC targets of all clips.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
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


def kl_losses(teacher: Tensor, student: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the (P,) KL divergences, in nats, of the student's next tokens from the teacher's.

    Both are (P, E) hidden states before the head; logits exist `CHUNK` positions at a time.
    """

    def divergences(teacher: Tensor, student: Tensor) -> Tensor:
        wanted, given = (project(h).float().log_softmax(-1) for h in (teacher, student))
        return F.kl_div(given, wanted, log_target=True, reduction="none").sum(-1)

    chunks = zip(teacher.split(CHUNK), student.split(CHUNK), strict=True)
    return torch.cat([checkpoint(divergences, t, s, use_reentrant=False) for t, s in chunks])


def ctc_loss(
    embeds: Tensor,
    embed_lens: Sequence[int],
    targets: Tensor,
    target_lens: Sequence[int],
    table: Tensor,
    blank: int,
    negatives: Tensor,
    scale: float,
    flat: float = 0.0,
) -> tuple[Tensor, int]:
    """Return the summed CTC loss (Graves et al. 2006) of the clips, and their number of targets.

    The adapter's output is read through the LLM's own embedding table: (A, E) `embeds` of clips
    with `embed_lens`, against (K,) `targets` with `target_lens`; the logits are their products with
    rows of the (V, E) `table`, times `scale`. The classes are the targets of all clips, the `blank`
    and the ids in `negatives`: a sample of the vocabulary that costs a twentieth of it and teaches
    as well (docs/results.md). Clips without targets, or too short for them, do not count.

    `flat` weighs a second term, as if a clip's words were evenly spaced over it: the flat start of
    hidden Markov models. CTC by itself first learns to stay silent, and may stay there for long.
    """
    known = torch.cat([targets, negatives, targets.new_tensor([blank])]).unique()
    log_probs = (F.linear(embeds, table[known]).float() * scale).log_softmax(-1)
    places = torch.searchsorted(known, targets)
    on_host = targets.cpu().split(list(target_lens))  # one wait for a GPU, not one for each clip
    kept = [
        (row, place)
        for row, place, target in zip(
            log_probs.split(list(embed_lens)),
            places.split(list(target_lens)),
            on_host,
            strict=True,
        )
        if alignable(len(row), target)
    ]
    if not kept:
        return log_probs.sum() * 0.0, 0
    loss = F.ctc_loss(
        nn.utils.rnn.pad_sequence([row for row, _ in kept]),
        torch.cat([target for _, target in kept]),
        torch.tensor([len(row) for row, _ in kept]),
        torch.tensor([len(target) for _, target in kept]),
        blank=int(torch.searchsorted(known, blank)),
        reduction="sum",
    )
    if flat:
        loss = loss + flat * sum(
            F.nll_loss(row, target[_evenly(len(row), len(target))]) * len(target)
            for row, target in kept
        )
    return loss, sum(len(target) for _, target in kept)


def alignable(num_embeds: int, target: Tensor) -> bool:
    """Return whether a clip has words, and embeddings for all of them.

    Equal neighbours need a blank between them.
    """
    repeats = int((target[1:] == target[:-1]).sum())
    return bool(len(target)) and num_embeds >= len(target) + repeats


def _evenly(frames: int, targets: int) -> Tensor:
    """Return for each frame the number of the target that it would say, were all equally long."""
    return torch.arange(frames) * targets // frames
