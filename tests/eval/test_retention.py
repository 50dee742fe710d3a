import math

import pytest
import torch

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.eval.retention import divergence, perplexity, untouched_llm
from voicetextblender.eval.run import evaluate
from voicetextblender.eval.suite import EvalSet, Suite

PASSAGES = [
    "You are a helpful assistant named SmolLM. " * 3,
    "Transcribe the content, with punctuations. " * 5,
]


def texts():
    return [Conversation(str(n), (assistant(text),)) for n, text in enumerate(PASSAGES)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_the_voice_off_every_logit_is_the_base_llms(build, processor, dtype):
    model = build(dtype=dtype)
    fresh = untouched_llm(model, processor).measures["perplexity"](texts())
    assert perplexity(model, processor, texts(), model.voice_off) == fresh
    ours = perplexity(model, processor, texts())
    assert all(one.answer != other.answer for one, other in zip(ours, fresh, strict=True))


def test_a_base_that_was_changed_is_found_out(build, processor):
    model = build()
    model.llm.get_input_embeddings().weight.data += 0.01
    fresh = untouched_llm(model, processor).measures["perplexity"](texts())
    assert perplexity(model, processor, texts(), model.voice_off) != fresh


def test_perplexity_is_that_of_every_token_but_each_passages_first(build, processor, tmp_path):
    model = build()
    (tmp_path / "text.txt").write_text("\n".join(text.strip() for text in PASSAGES))
    of = EvalSet(name="text", path=str(tmp_path / "text.txt"), speech="none", scorer="perplexity")
    scores = evaluate(model, processor, Suite(name="kept", sets=(of,)), tmp_path / "out")
    nll, num_tokens = 0.0, 0
    for text in PASSAGES:
        ids = torch.tensor([processor.tokenizer(text.strip()).input_ids])
        with torch.inference_mode():
            nll += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        num_tokens += ids.shape[1] - 1
    by_system = {s.system: s.value for s in scores if s.against is None}
    assert by_system["ours"] == pytest.approx(math.exp(nll / num_tokens), rel=1e-4)
    assert by_system["base"] == by_system["llm"] != by_system["ours"]


def test_the_divergence_is_nought_without_a_voice_and_the_mean_over_answers(build, processor):
    model = build()
    item = Conversation("a", (user("1 + 1?"), assistant("two, no doubt")))
    (found,) = divergence(model, processor, [item])
    assert found.scores[0] > 0 and found.scores[1] == sum(
        label >= 0 for label in processor.encode(item, []).labels
    )
    with torch.no_grad():
        for parameter in model.trained_parts()["lora"]:
            parameter.zero_()
    assert divergence(model, processor, [item])[0].scores[0] == 0.0


@pytest.mark.parametrize("turns", [(assistant(""),), (user("a"), assistant("b c d"))])
def test_what_is_no_text_has_no_perplexity(build, processor, turns):
    with pytest.raises(ValueError, match="'a': .* perplexity needs a text of two tokens or more"):
        perplexity(build(), processor, [Conversation("a", turns)])
