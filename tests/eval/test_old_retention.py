import math

import pytest
import torch

from voicetextblender.eval.old_retention import PROMPTS, read_retention, retention, text_answers

TEXT = "You are a helpful assistant named SmolLM. Transcribe the content, with punctuations. " * 12


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def kept(model, processor, text, **others):
    return retention(model, processor, text, prompts=PROMPTS[:2], max_new_tokens=4, **others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_the_voice_off_it_is_the_base_llm_bit_for_bit(build, processor, text, dtype):
    found = kept(build(dtype=dtype), processor, text)
    assert found.is_identical
    assert found.voice_off_perplexity == found.base_perplexity != found.ours_perplexity


def test_a_base_that_was_changed_is_found_out(build, processor, text):
    model = build()
    model.llm.get_input_embeddings().weight.data += 0.01
    assert not kept(model, processor, text).is_identical


def test_perplexity_is_that_of_every_token_but_each_windows_first(
    build, processor, text, monkeypatch
):
    monkeypatch.setattr("voicetextblender.eval.old_retention.WINDOW", 50)
    model = build()
    found = kept(model, processor, text)
    nll, num_tokens = 0.0, 0
    for window in torch.tensor(processor.tokenizer(TEXT).input_ids).split(50):
        with torch.inference_mode():
            loss = model(window[None], labels=window[None]).loss
        nll, num_tokens = nll + loss.item() * (len(window) - 1), num_tokens + len(window) - 1
    assert found.num_tokens == num_tokens > 100
    assert found.ours_perplexity == pytest.approx(math.exp(nll / num_tokens), rel=1e-4)


def test_questions_are_answered_with_the_voice_off_and_on(build, processor):
    model = build()
    found = text_answers(model, processor, PROMPTS[:2], 4)
    assert [answer.prompt for answer in found] == list(PROMPTS[:2])
    with model.voice_off():
        off = text_answers(model, processor, PROMPTS[:2], 4)
    assert [a.base for a in found] == [a.base for a in off]


def test_what_was_found_is_read_back_as_it_was(build, processor, text, tmp_path):
    found = kept(build(), processor, text, out=tmp_path / "eval/retention.json")
    assert read_retention(tmp_path / "eval/retention.json") == found
    assert read_retention(tmp_path / "nothing.json") is None


def test_a_model_in_training_mode_is_refused(build, processor, text):
    with pytest.raises(ValueError, match=r"training mode.*call model.eval\(\) first"):
        kept(build().train(), processor, text)


def test_a_text_too_short_to_predict_is_refused(build, processor, text):
    text.write_text("")
    with pytest.raises(ValueError, match="0 tokens; perplexity needs a text of two or more"):
        kept(build(), processor, text)
