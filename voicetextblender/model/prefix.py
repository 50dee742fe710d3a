"""Joint decoding: the LLM says what is likely to be said, CTC what is heard; both choose the token.

The adapter's embeddings, read through the LLM's own embedding table, are a CTC model over the LLM's
own tokens (train/loss.py). So each token of a transcript can be weighed by how much likelier it
makes what was heard: the CTC prefix score of Watanabe et al. 2017, "Hybrid CTC/Attention
Architecture for End-to-End Speech Recognition". It keeps an LLM from writing what nobody said.

Shapes: T audio embeddings of one clip, V vocabulary, C candidates for the next token.
"""

import math
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voicetextblender.model.modeling import SpeechLM

CTC_DECODING = 0.5
"""Weight of CTC in the transcripts of models that were trained with it (docs/results.md)."""
PER_FRAME = 4
"""Tokens of each embedding that are candidates for the transcript."""
LEAST = 1e-3
"""Probability below which a token is not heard in an embedding."""
OF_LLM = 8
"""Tokens that the LLM finds likeliest, which are candidates too."""
NEVER = -1e4
"""Log-probability of what cannot be heard; finite, so that something can be chosen."""


class HeardPrefix:
    """How well a growing transcript fits what is heard in one clip."""

    def __init__(
        self,
        log_probs: Callable[[Tensor], Tensor],
        heard: Tensor,
        blank: int,
        stop_ids: Collection[int],
    ) -> None:
        """Begin with the empty transcript of a clip.

        `log_probs` maps (C,) tokens to their (T, C) log-probabilities; `heard` are the tokens that
        are likely anywhere in the clip.
        """
        self.log_probs = log_probs
        self.stops = torch.tensor(sorted(stop_ids))
        self.others = torch.tensor([blank, *stop_ids])
        """Tokens that no clip says."""
        self.heard = heard[~torch.isin(heard, self.others)]
        self.of_heard = log_probs(self.heard).double()  # (T, C)
        self.blank = log_probs(torch.tensor([blank]))[:, 0].double().numpy()  # (T,)
        # (T,): log-probability that what is heard up to there is the transcript, and ends so.
        self.in_blank = np.cumsum(self.blank)
        self.in_token = np.full(len(self.blank), -np.inf)
        self.last: int | None = None
        self.score = 0.0
        """Log-probability that what is heard begins with the transcript so far."""

    @classmethod
    def of_clip(cls, model: SpeechLM, embeds: Tensor, stop_ids: Collection[int]) -> "HeardPrefix":
        """Begin with the empty transcript of a clip with (T, E) audio embeddings.

        The whole vocabulary's (T, V) exist for a moment only: 30 s take 74 MB.
        """
        table = model.table
        embeds = embeds.to(table.dtype)
        logits = F.linear(embeds, table).float() * model.ctc_scale
        whole = logits.logsumexp(-1, keepdim=True)  # (T, 1)
        values, ids = logits.topk(min(PER_FRAME, logits.shape[1]), dim=-1)
        heard = ids[values - whole > math.log(LEAST)].unique().cpu()

        def log_probs(tokens: Tensor) -> Tensor:
            rows = table[tokens.to(table.device)]
            return (F.linear(embeds, rows).float() * model.ctc_scale - whole).cpu()

        return cls(log_probs, heard, model.config.audio_token_id, stop_ids)

    def weigh(self, logits: Tensor, weight: float) -> Tensor:
        """Return (V,) logits of the candidates, where CTC has `weight` and the LLM the rest."""
        of_llm = logits.float().log_softmax(-1)
        likely = of_llm.topk(min(OF_LLM, len(of_llm))).indices
        likely = likely[~torch.isin(likely, torch.cat([self.others, self.heard]))]
        candidates = torch.cat([self.heard, likely])
        scores = self._scores(candidates, torch.cat([self.of_heard, self.log_probs(likely)], dim=1))
        both = torch.full_like(of_llm, float("-inf"))
        gain = torch.from_numpy(np.maximum(scores - self.score, NEVER)).to(of_llm)
        both[candidates] = (1 - weight) * of_llm[candidates] + weight * gain
        whole = np.logaddexp(self.in_blank[-1], self.in_token[-1])
        end = max(float(whole) - self.score, NEVER)
        both[self.stops] = (1 - weight) * of_llm[self.stops] + weight * end
        return both

    def accept(self, token: int) -> None:
        """Go on behind a token."""
        heard = self.log_probs(torch.tensor([token]))[:, 0].double().numpy()
        before = self._before(token)
        self.score = float(np.logaddexp.reduce(before + heard))
        in_token, in_blank = np.full(len(heard), -np.inf), np.full(len(heard), -np.inf)
        token_score = blank_score = -np.inf
        for t in range(len(heard)):
            blank_score = np.logaddexp(blank_score, token_score) + self.blank[t]
            token_score = np.logaddexp(token_score, before[t]) + heard[t]
            in_token[t], in_blank[t] = token_score, blank_score
        self.in_token, self.in_blank, self.last = in_token, in_blank, token

    def _scores(self, candidates: Tensor, heard: Tensor) -> np.ndarray:
        """Return (C,): the prefix scores of the transcript with each candidate behind it.

        `heard` are the candidates' (T, C) log-probabilities.
        """
        before = torch.from_numpy(self._before(None))
        scores = (before[:, None] + heard).logsumexp(0).numpy()
        if self.last is not None and self.last in candidates:  # a blank keeps it from its twin
            place = int((candidates == self.last).nonzero())
            own = torch.from_numpy(self._before(self.last)) + heard[:, place]
            scores[place] = float(own.logsumexp(0))
        return scores

    def _before(self, token: int | None) -> np.ndarray:
        """Return (T,): log-probability that the prefix is whole before each embedding."""
        whole = self.in_blank
        if token is None or token != self.last:
            whole = np.logaddexp(whole, self.in_token)
        first = 0.0 if self.last is None else -np.inf  # only nothing is whole before all
        return np.concatenate([[first], whole[:-1]])
