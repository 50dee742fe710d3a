"""The training loss: next tokens of the answers, and CTC on what is heard.

Shapes: P supervised positions, E width of the LLM, V its vocabulary, A audio embeddings of all
clips, K CTC targets of one clip.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from voicetextblender.model.layout import begins, lay_apart, places, take

CHUNK = 1024
"""Positions whose logits exist at one time, so that the vocabulary does not decide the memory."""

CHUNK_ON_GPU = 8192
"""The same, where few calls count for more: 1.6 GB for a vocabulary of 50,000."""


def token_losses(hidden: Tensor, targets: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (P,) cross entropies in float32 for (P, E) hidden states and (P,) target ids.

    Logits are made `CHUNK` positions at a time and made again in the backward pass.
    """

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(project(hidden).float(), targets, reduction="none")

    chunks = zip(_chunks(hidden), _chunks(targets), strict=True)
    return torch.cat([checkpoint(losses, h, t, use_reentrant=False) for h, t in chunks])


def kl_losses(teacher: Tensor, student: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the (P,) KL divergences, in nats, of the student's next tokens from the teacher's.

    Both are (P, E) hidden states before the head; logits exist `CHUNK` positions at a time.
    """

    def divergences(teacher: Tensor, student: Tensor) -> Tensor:
        wanted, given = (project(h).float().log_softmax(-1) for h in (teacher, student))
        return F.kl_div(given, wanted, log_target=True, reduction="none").sum(-1)

    chunks = zip(_chunks(teacher), _chunks(student), strict=True)
    return torch.cat([checkpoint(divergences, t, s, use_reentrant=False) for t, s in chunks])


def ctc_loss(
    embeds: Tensor,
    embed_lens: Sequence[int],
    words: Sequence[Tensor | None],
    table: Tensor,
    blank: int,
    negatives: Tensor,
    scale: float,
    flat: float = 0.0,
) -> tuple[Tensor, int]:
    """Return the summed CTC loss (Graves et al. 2006) of the clips, and their number of targets.

    The adapter's output is read through the LLM's own embedding table: (A, E) `embeds` of clips
    with `embed_lens`, against each one's (K,) `words` on the host; the logits are their products
    with rows of the (V, E) `table`, times `scale`. The classes are the words of all clips, the
    `blank` and the ids in `negatives`: a sample of the vocabulary that costs a twentieth of it and
    teaches as well (docs/results.md). Clips in which nobody speaks have no words, and are all
    blanks; those of which it is not known (None), and those too short, do not count.

    `flat` weighs a second term, as if a clip's words were evenly spaced over it: the flat start of
    hidden Markov models. CTC by itself first learns to stay silent, and may stay there for long.
    """
    device = embeds.device
    clips = zip(begins(embed_lens), embed_lens, words, strict=True)
    kept = [(begin, n, own) for begin, n, own in clips if own is not None and alignable(n, own)]
    classes = torch.cat([*(own for *_, own in kept), negatives.cpu(), torch.tensor([blank])])
    known, numbers = classes.unique(return_inverse=True)
    log_probs = (F.linear(embeds, table[known.to(device)]).float() * scale).log_softmax(-1)
    if not kept:
        return log_probs.sum() * 0.0, 0
    starts, lens, targets = zip(*kept, strict=True)
    num_words = torch.tensor([len(own) for own in targets])
    numbered, blank = numbers[: int(num_words.sum())], int(numbers[-1])
    rows = take(log_probs, places(lens, starts, device))
    size = len(lens), max(lens)
    beside = places(lens, tuple(range(0, math.prod(size), size[1])), device)
    loss = F.ctc_loss(
        lay_apart(rows, beside, math.prod(size)).unflatten(0, size).transpose(0, 1),
        numbered.to(device),
        torch.tensor(lens),
        num_words,
        blank=blank,
        reduction="sum",
    )
    if flat:
        each = [own if len(own) else numbers[-1:] for own in numbered.split(num_words.tolist())]
        evenly = [own[torch.arange(n) * len(own) // n] for n, own in zip(lens, each, strict=True)]
        share = (num_words / torch.tensor(lens)).repeat_interleave(torch.tensor(lens))
        said = rows.gather(1, torch.cat(evenly).to(device).unsqueeze(1)).squeeze(1)
        loss = loss - flat * (said * share.to(device)).sum()
    return loss, ctc_count(embed_lens, words)


def ctc_count(embed_lens: Sequence[int], words: Sequence[Tensor | None]) -> int:
    """Return the targets that `ctc_loss` counts: words, and one for a clip without any."""
    clips = zip(embed_lens, words, strict=True)
    return sum(max(1, len(own)) for n, own in clips if own is not None and alignable(n, own))


def alignable(num_embeds: int, words: Tensor) -> bool:
    """Return whether a clip has embeddings for all of its words.

    Equal neighbours need a blank between them.
    """
    repeats = int((words[1:] == words[:-1]).sum())
    return num_embeds >= max(1, len(words) + repeats)


def _chunks(rows: Tensor) -> Sequence[Tensor]:
    return rows.split(CHUNK_ON_GPU if rows.is_cuda else CHUNK)
