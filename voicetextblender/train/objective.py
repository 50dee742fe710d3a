"""The objective: what a packed row adds to the loss of a step.

Four terms, each summed over the row and divided by its count over the whole step, all rows of all
ranks, so that a step's gradient does not depend on how its rows are spread: next tokens of the
answers, CTC on what is heard, and the distance from the LLM as it was, on text and on what is
spoken, beside its typed twin.

Shapes: N tokens of the row, P of them supervised, E width of the LLM, A audio embeddings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voicetextblender.batch import IGNORE, Batch, Twins
from voicetextblender.config import TrainConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.train.loss import ctc_count, ctc_loss, kl_losses, token_losses
from voicetextblender.train.tally import Tally

Lens = tuple[int, ...]
Encode = Callable[[Tensor, Lens], tuple[Tensor, Lens]]
"""Makes frames of clips: the model's encoder, or a cache before it."""

TERMS = ("tokens", "heard", "typed", "spoken")
"""What is counted: supervised tokens by weight, CTC targets, compared positions of two kinds."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A recipe's loss of a model; the same for every row."""

    model: SpeechLM
    config: TrainConfig
    source_weights: Mapping[str, float]
    """Weight of each source's tokens."""
    encode: Encode
    is_sharded: bool = False
    """Whether other ranks wait for this one in every layer, whatever its row holds."""

    def counts(self, batch: Batch) -> Tensor:
        """Return how much of each term a row has, (len(TERMS),), before anything is computed."""
        embed_lens = self.model.num_embeddings(batch.clip_lens)
        spoken = batch.twins.is_spoken if batch.twins else torch.zeros(0, dtype=torch.bool)
        return torch.tensor(
            [
                self._weights(batch).sum().item(),
                ctc_count(embed_lens, batch.words_of_clips),
                (~spoken).sum().item(),
                spoken.sum().item(),
            ],
            dtype=torch.float64,
        )

    def loss(self, batch: Batch, counts: Tensor, step: int, tally: Tally) -> Tensor:
        """Return a row's share of the loss of optimiser step `step`, whose terms have `counts`.

        The first `adapter_first` steps have the CTC alone.
        """
        model, config = self.model, self.config
        audio, audio_lens = model.table.new_zeros(0, model.table.shape[1]), ()
        if batch.clip_lens:
            audio, audio_lens = model.adapt(*self.encode(batch.features, batch.clip_lens))
        tokens, heard, typed, spoken = counts.where(counts > 0, 1.0).tolist()
        loss = audio.sum() * 0.0  # so that a sharded adapter has a gradient, if only of zeros
        if step >= config.adapter_first:
            own = len(batch.clip_lens) - batch.extra_clips
            sums = self._llm_losses(batch, audio[: sum(audio_lens[:own])], loss, tally)
            weights = (1 / tokens, config.kl_weight / typed, config.kl_twin_weight / spoken)
            loss = loss + sum(w * s for w, s in zip(weights, sums, strict=True))
        if config.ctc_weight and batch.clip_lens:
            ctc, num_targets = ctc_loss(
                audio,
                audio_lens,
                batch.words_of_clips,
                model.table,
                model.config.audio_token_id,
                torch.randint(len(model.table), (config.ctc_negatives,)),
                model.ctc_scale,
                flat=max(0.0, 1 - step / max(1, config.flat_start)),
            )
            tally.add(ctc=ctc.detach(), ctc_tokens=num_targets)
            loss = loss + config.ctc_weight / heard * ctc
        return loss

    def _llm_losses(
        self, batch: Batch, audio: Tensor, nothing: Tensor, tally: Tally
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums over a row of next tokens, of distance on text, and on what is spoken.

        `nothing` is a zero that the adapter's gradient passes through.
        """
        model = self.model
        twins = batch.twins
        before = self._before(twins)
        embeds = model.embed(batch.input_ids, audio)
        if self.is_sharded:
            # Rows without speech go back through the LLM and then the adapter too: ranks exchange
            # gradients layer by layer, and must do so in the same order.
            embeds = embeds + nothing
        hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens)[0]
        supervised = batch.labels != IGNORE
        losses = token_losses(hidden[supervised], batch.labels[supervised], model.project)
        tally.add_tokens(batch, losses.detach(), supervised)
        tokens = (losses * self._weights(batch)).sum()
        if before is None or twins is None:
            return tokens, tokens.new_zeros(()), tokens.new_zeros(())
        far = kl_losses(before, hidden[twins.own], model.project)
        typed, spoken = far[~twins.is_spoken].sum(), far[twins.is_spoken].sum()
        tally.add(kl=typed.detach(), kl_tokens=(~twins.is_spoken).sum())
        tally.add(kl_twin=spoken.detach(), kl_twin_tokens=twins.is_spoken.sum())
        return tokens, typed, spoken

    @torch.no_grad()
    def _before(self, twins: Twins | None) -> Tensor | None:
        """Return the frozen LLM's states at the twins' positions that are compared."""
        if twins is None:
            are_wanted = self.config.kl_weight or self.config.kl_twin_weight
            if not self.is_sharded or not are_wanted:
                return None
            twins = Twins.nothing().to(self.model.device)  # other ranks may have some
        with self.model.voice_off():
            embeds = self.model.llm.get_input_embeddings()(twins.input_ids)
            hidden = self.model.decode(embeds[None], twins.position_ids[None], twins.seq_lens)
        return hidden[0, twins.at]

    def _weights(self, batch: Batch) -> Tensor:
        """(P,): the weight of each supervised token."""
        by_source = torch.tensor([self.source_weights[name] for name in batch.sources])
        return by_source.to(batch.labels.device)[batch.source_ids[batch.labels != IGNORE]]
