"""Retention: what the LLM still knows of text after it learned to listen, read from probabilities.

Perplexity is that of fixed text, and the divergence how far our next-token distributions are from
the base LLM's along fixed answers. The LLM that training began from is loaded afresh, as anybody
would load it; with the voice off ours must be that very model, and a digest of every logit says so.

Shapes: N tokens of an item, V size of the vocabulary.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import AutoModelForCausalLM

from voicetextblender.batch import IGNORE
from voicetextblender.chat import Conversation
from voicetextblender.eval.predict import Measured, System
from voicetextblender.eval.suite import reference
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import quietly, resolve
from voicetextblender.model.processing import SpeechLMProcessor

Logits = Callable[[Tensor], Tensor]
"""Maps (1, N) tokens to (1, N, V) logits."""


def untouched_llm(model: SpeechLM, processor: SpeechLMProcessor) -> System:
    """Return the LLM that our model was made of as a system, loaded when it is first asked."""
    name = model.config.model.llm

    @cache
    def loaded() -> nn.Module:
        with quietly():
            llm = AutoModelForCausalLM.from_pretrained(resolve(name), dtype=model.dtype)
        return nn.Module.to(llm.eval(), model.device)

    def measure(items: Sequence[Conversation]) -> list[Measured]:
        return [
            nll(lambda ids: loaded()(input_ids=ids, use_cache=False).logits, item, model, processor)
            for item in items
        ]

    def answer(asked: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        raise ValueError("'llm' is only read from; ask 'base', the same model with our code")

    dtype = str(model.dtype).removeprefix("torch.")
    return System("llm", f"{name}, {dtype}, loaded afresh", "", answer, {"perplexity": measure})


def perplexity(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    items: Sequence[Conversation],
    mode: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Measured]:
    """Return the negative log-likelihood of each item's text and its tokens, one item at a time."""
    with mode():
        return [nll(lambda ids: model(ids).logits, item, model, processor) for item in items]


@torch.inference_mode()
def nll(
    logits_of: Logits, item: Conversation, model: SpeechLM, processor: SpeechLMProcessor
) -> Measured:
    """Return [nats, tokens] of a text but for its first token, and a digest of all its logits.

    Raises ValueError for a text of fewer than two tokens.
    """
    text = reference(item)
    ids = processor.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    if len(ids) < 2 or len(item.messages) > 1:
        raise ValueError(
            f"conversation '{item.id}': {len(ids)} tokens and {len(item.messages)} turns; "
            f"perplexity needs a text of two tokens or more, as one turn of the assistant"
        )
    row = torch.tensor([ids], device=model.device)
    logits = logits_of(row)
    nats = cross_entropy(logits[0, :-1].float(), row[0, 1:], reduction="sum").item()
    digest = hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()[:16]
    return Measured([nats, len(ids) - 1], digest)


@torch.inference_mode()
def divergence(
    model: SpeechLM, processor: SpeechLMProcessor, items: Sequence[Conversation]
) -> list[Measured]:
    """Return [nats, tokens] of KL(base LLM ‖ ours) along each typed item's answers."""
    found = []
    for item in items:
        sample = processor.encode(item.typed(), [])
        row = torch.tensor([sample.ids], device=model.device)
        asked = torch.tensor(sample.labels, device=model.device) != IGNORE
        ours = log_softmax(model(row).logits[0, asked].float(), -1)
        with model.voice_off():
            base = log_softmax(model(row).logits[0, asked].float(), -1)
        nats = kl_div(ours, base, reduction="sum", log_target=True).item()
        found.append(Measured([max(0.0, nats), int(asked.sum())]))
    return found
