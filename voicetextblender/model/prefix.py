"""Joint decoding: the LLM says what is likely to be said, CTC what is heard; both choose the token.

The adapter's embeddings, read through the LLM's own embedding table, are a CTC model over the LLM's
own tokens (train/loss.py). So each token of a transcript can be weighed by how much likelier it
makes what was heard: the CTC prefix score of Watanabe et al. 2017, "Hybrid CTC/Attention
Architecture for End-to-End Speech Recognition". It keeps an LLM from writing what nobody said.

Shapes: T audio embeddings of one clip, V vocabulary, C candidates for the next token.
"""

import math
from collections.abc import Callable, Collection, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voicetextblender.model.layout import complete
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
LOWEST = -1e30
"""Score of a transcript that the clip has no room for; finite, so that scores can be compared."""
ROWS = 8
"""Embeddings whose logits are looked at together; as many as stay in a processor's cache."""


class HeardPrefix:
    """How well a growing transcript fits what is heard in one clip."""

    def __init__(
        self,
        log_probs: Callable[[Tensor], Tensor],
        heard: Tensor,
        blank: int,
        stop_ids: Collection[int],
        best: Sequence[int] = (),
    ) -> None:
        """Begin with the empty transcript of a clip.

        `log_probs` maps (C,) tokens to their (T, C) log-probabilities; `heard` are the tokens that
        are likely anywhere in the clip, and `best` the likeliest of each embedding.
        """
        self.best = best
        self.log_probs = lambda tokens: log_probs(tokens).double().numpy()
        self.stops = torch.tensor(sorted(stop_ids))
        self.silent = {blank, *stop_ids}
        """Tokens that no clip says."""
        others = torch.tensor(sorted(self.silent))
        self.heard = heard[~torch.isin(heard, others)]
        self.known = torch.cat([others, self.heard])
        self.of_heard = np.exp(self.log_probs(self.heard))  # (T, C)
        self.blank = self.log_probs(torch.tensor([blank]))[:, 0]  # (T,)
        # (T,): log-probability that what is heard up to there is the transcript, and ends so.
        self.in_blank = np.cumsum(self.blank)
        self.in_token = np.full(len(self.blank), -np.inf)
        self.last: int | None = None
        self.score = 0.0
        """Log-probability that what is heard begins with the transcript so far."""

    @classmethod
    def of_clip(cls, model: SpeechLM, embeds: Tensor, stop_ids: Collection[int]) -> "HeardPrefix":
        """Begin with the empty transcript of a clip with (T, E) audio embeddings.

        The whole vocabulary's (T, V) exist for a moment only: 30 s take 37 MB.
        """
        table = model.table
        row, _ = complete(embeds.to(table.dtype), ())
        logits = F.linear(row, table)[: len(embeds)]
        wholes, heard, best = [], [], []
        for part in logits.split(ROWS):
            part = part.float() * model.ctc_scale
            wholes.append(part.logsumexp(-1, keepdim=True))
            values, ids = part.topk(min(PER_FRAME, part.shape[1]), dim=-1)
            heard.append(ids[values - wholes[-1] > math.log(LEAST)])
            best += ids[:, 0].tolist()
        whole, audio = torch.cat(wholes), embeds.to(table.dtype).float()  # (T, 1), (T, E)

        def log_probs(tokens: Tensor) -> Tensor:
            rows = table[tokens.to(table.device)].float()
            return (audio @ rows.T * model.ctc_scale - whole).cpu()

        blank = model.config.audio_token_id
        return cls(log_probs, torch.cat(heard).unique().cpu(), blank, stop_ids, best)

    def weigh(self, logits: Tensor, weight: float) -> Tensor:
        """Return (V,) logits of the candidates, where CTC has `weight` and the LLM the rest."""
        of_llm = logits.float().log_softmax(-1)
        likely = of_llm.topk(min(OF_LLM, len(of_llm))).indices
        likely = likely[~torch.isin(likely, self.known)]
        candidates = torch.cat([self.heard, likely])
        gain = torch.from_numpy(self._gains(candidates, likely)).to(of_llm)
        both = torch.full_like(of_llm, float("-inf"))
        both[candidates] = (1 - weight) * of_llm[candidates] + weight * gain
        whole = np.logaddexp(self.in_blank[-1], self.in_token[-1])
        end = max(float(whole) - self.score, NEVER)
        both[self.stops] = (1 - weight) * of_llm[self.stops] + weight * end
        return both

    def draft(self, num: int) -> list[int]:
        """Guess up to `num` tokens that come next: the likeliest ones behind the last."""
        at = 0 if self.last is None else int(self.in_token.argmax()) + 1
        path = [token for token, _ in groupby([self.last, *self.best[at:]])][1:]
        return [token for token in path if token is not None and token not in self.silent][:num]

    def accept(self, token: int) -> None:
        """Go on behind a token."""
        heard = self.log_probs(torch.tensor([token]))[:, 0]
        before = self._before(token)
        self.score = max(float(np.logaddexp.reduce(before + heard)), LOWEST)
        self.in_token = _stay(before, heard)
        self.in_blank = _stay(np.concatenate([[-np.inf], self.in_token[:-1]]), self.blank)
        self.last = token

    def _gains(self, candidates: Tensor, likely: Tensor) -> np.ndarray:
        """Return (C,): how much likelier each candidate makes what is heard, as log-probabilities.

        Candidates are the tokens heard and those `likely` to the LLM.
        """
        before = self._before(None)
        most = max(before.max(), LOWEST)
        weights = np.exp(before - most)
        of_likely = np.exp(self.log_probs(likely))
        with np.errstate(divide="ignore"):
            scores = np.log(np.concatenate([weights @ self.of_heard, weights @ of_likely])) + most
        if self.last is not None and self.last in candidates:  # a blank keeps it from its twin
            own = self.log_probs(torch.tensor([self.last]))[:, 0]
            twin = int((candidates == self.last).nonzero())
            scores[twin] = np.logaddexp.reduce(self._before(self.last) + own)
        return np.maximum(scores - self.score, NEVER)

    def _before(self, token: int | None) -> np.ndarray:
        """Return (T,): log-probability that the prefix is whole before each embedding."""
        whole = self.in_blank
        if token is None or token != self.last:
            whole = np.logaddexp(whole, self.in_token)
        first = 0.0 if self.last is None else -np.inf  # only nothing is whole before all
        return np.concatenate([[first], whole[:-1]])


def _stay(enter: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """Return (T,): log-probability of being in a state that is entered before an embedding.

    `enter` (T,) is that of entering it there, `stay` (T,) that of its sound at each embedding.
    """
    through = np.cumsum(stay)
    return through + np.logaddexp.accumulate(enter - through + stay)
