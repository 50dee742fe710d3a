"""Faults are planted, one at a time, in a recipe that is well; the doctor must find each."""

import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from voicetextblender import audio
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train import doctor
from voicetextblender.train.doctor import consult, examine


@pytest.fixture
def healthy(recipe, corpus):
    """Longer clips than the corpus has: a tiny tokenizer needs many tokens for a word."""
    for n in range(6):
        sound = np.random.default_rng(n).uniform(-0.3, 0.3, 16_000 * 2).astype(np.float32)
        audio.save(corpus / f"clips/{n}.wav", sound)
    return recipe(tokens_per_batch=400)


def ill(recipe, until=None):
    """The checks that fail, with what was found and the remedy."""
    found = {}
    for finding in examine(recipe):
        if not finding.is_well:
            assert finding.remedy
            found[finding.check] = finding
        if finding.check == until:
            break
    return found


def only(recipe, check, until="CTC knows what is said"):
    """What is found by the one check that fails; without the model, unless its checks matter."""
    found = ill(recipe, until)
    assert list(found) == [check], found
    return found[check].found


def clip_of(record):
    return record["messages"][0]["content"][1]


def replaced(recipe, tmp_path, template):
    """The recipe with an LLM whose tokenizer has another chat template."""
    folder = tmp_path / "other-llm"
    shutil.copytree(recipe.model.llm, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"llm": str(folder)})})


def test_a_part_that_is_not_there(healthy):
    model = healthy.model.model_copy(update={"encoder": "whisper-bse"})
    found = only(healthy.model_copy(update={"model": model}), "parts and data are there")
    assert "did you mean 'whisper-base'" in found


def test_a_tokenizer_without_a_chat_template(healthy, tmp_path):
    found = only(replaced(healthy, tmp_path, None), "labels and slots agree with the chat template")
    assert "no chat template" in found


def test_a_template_that_loses_what_the_user_said(healthy, tmp_path):
    """The slot of the clip is then missing, and no label would be wrong by itself."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content[:4] if m.role == 'user' else m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    found = only(
        replaced(healthy, tmp_path, template), "labels and slots agree with the chat template"
    )
    assert "1 clips, but the chat template left 0 slots" in found


def test_a_conversation_without_an_answer(healthy, first_line):
    first_line(lambda record: record["messages"].pop())
    found = only(healthy, "labels and slots agree with the chat template")
    assert "1 of 12" in found and "conversation 'asr-0': no assistant turn" in found


def test_a_line_that_cannot_be_read(healthy, first_line):
    first_line("{oops")
    assert "asr.jsonl:1: not JSON" in only(healthy, "conversations can be read")


def test_an_answer_without_a_word(healthy, first_line):
    first_line(lambda record: record["messages"][1].update(content=" "))
    assert "'asr-0' has an answer without a word" in only(healthy, "every answer has words")


@pytest.mark.parametrize("data", [None, b"RIFF no sound"], ids=["missing", "broken"])
def test_a_clip_that_cannot_be_heard(healthy, corpus, data):
    (corpus / "clips/0.wav").unlink()
    if data:
        (corpus / "clips/0.wav").write_bytes(data)
    assert "clips/0.wav" in only(healthy, "clips can be heard")


def test_a_silent_clip(healthy, corpus):
    audio.save(corpus / "clips/3.wav", np.zeros(32_000, np.float32))
    assert "clips/3.wav: nothing louder than 0.00000" in only(healthy, "clips are not silent")


def test_silence_that_is_said_to_be_silence_is_no_fault(healthy, corpus, first_line):
    audio.save(corpus / "clips/0.wav", np.zeros(32_000, np.float32))

    def nobody_speaks(record):
        clip_of(record).update(text="")
        record["messages"][1].update(content="")

    first_line(nobody_speaks)
    assert not ill(healthy, "CTC knows what is said")


def test_a_clip_that_is_shorter_than_stated(healthy, first_line):
    first_line(lambda record: clip_of(record).update(duration=9))
    found = only(healthy, "clips are as long as stated")
    assert "2.00 s of sound where 9.00 s are stated" in found


def test_a_conversation_that_fits_no_row(healthy, first_line):
    first_line(lambda record: record["messages"][1].update(content="long " * 200))
    assert "conversation 'asr-0' has" in only(healthy, "conversations fit a row")


def test_a_clip_with_the_text_of_another(healthy, first_line):
    first_line(lambda record: clip_of(record).update(text="Far more words than two seconds hold"))
    found = only(healthy, "what is said fits the clip")
    assert "tokens of text in 2.00 s" in found


def test_speech_without_texts_where_ctc_is_to_be_trained(healthy, corpus):
    path = corpus / "asr.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        del clip_of(record)["text"]
    path.write_text("\n".join(map(json.dumps, records)))
    assert "0 of 6 clips have a text" in only(healthy, "CTC knows what is said")
    without = healthy.train.model_copy(update={"ctc_weight": 0.0})
    checks = [f.check for f in examine(healthy.model_copy(update={"train": without}))]
    assert "CTC knows what is said" not in checks


def test_ids_that_are_not_those_of_the_tokenizers_own_template(healthy, monkeypatch):
    encode = SpeechLMProcessor.encode

    def with_a_token_more(self, conversation, clips, *others):
        sample = encode(self, conversation, clips, *others)
        sample.ids.append(5)
        sample.labels.append(-100)
        return sample

    monkeypatch.setattr(SpeechLMProcessor, "encode", with_a_token_more)
    assert "'text-0' has other ids" in only(healthy, "the template is the tokenizer's own")


def after_loading(monkeypatch, change):
    """Change every model that the doctor loads."""
    from_parts = SpeechLM.from_parts

    def changed(*given):
        model = from_parts(*given)
        with torch.no_grad():
            change(model)
        return model

    monkeypatch.setattr(SpeechLM, "from_parts", changed)


def test_an_llm_whose_own_weights_were_changed(healthy, monkeypatch):
    after_loading(monkeypatch, lambda model: model.table.mul_(1.01))
    assert "logits differ by up to" in only(healthy, "voice off is the LLM itself", until=None)


def test_lora_that_is_not_applied(healthy, monkeypatch):
    def unhook(model):
        for module in model.llm.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: 0.0 for name in module.scaling}

    after_loading(monkeypatch, unhook)
    found = ill(healthy)
    assert "none reaches the logits" in found["LoRA changes the output"].found


def test_audio_that_does_not_reach_the_llm(healthy, monkeypatch):
    after_loading(monkeypatch, lambda model: model.adapter.down.weight.zero_())
    found = ill(healthy)
    assert "not trained yet" in found["the audio matters"].found


def test_a_trained_model_that_does_not_listen(healthy, corpus, processor):
    """Its loss is the same whatever it is given to hear."""
    torch.manual_seed(0)
    model = SpeechLM.from_parts(healthy.model, processor.audio_token_id, torch.float32)
    with torch.no_grad():
        model.adapter.down.weight.mul_(1e-3)
    model.save_pretrained(corpus / "run/model")
    found = only(healthy, "the audio matters", until=None)
    assert "with others" in found and "not trained yet" not in found


def test_a_run_that_another_recipe_trained(healthy, corpus, processor, tiny):
    other = tiny(lora={"rank": 3})
    SpeechLM.from_parts(other, processor.audio_token_id).save_pretrained(corpus / "run/model")
    assert "does not fit" in only(healthy, "the run's model fits the recipe", until=None)


def test_a_part_that_no_gradient_reaches(healthy, monkeypatch):
    embed = SpeechLM.embed_audio

    def cut_off(self, *given):
        embeds, lens = embed(self, *given)
        return embeds.detach(), lens

    monkeypatch.setattr(SpeechLM, "embed_audio", cut_off)
    assert "adapter 0" in only(healthy, "gradients reach every part", until=None)


def test_a_row_that_does_not_fit_in_memory(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda: 10_000)
    assert "for a row of 400 positions" in only(
        healthy, "the longest row fits in memory", until=None
    )


def test_green_is_what_is_scored_and_a_clip_is_a_note(healthy):
    shown = next(f.examples for f in examine(healthy) if f.examples)
    speech = next(text for text in shown if text.plain.startswith("asr"))
    assert "♪" in speech.plain and "Say:" in speech.plain
    green = "".join(speech.plain[s.start : s.end] for s in speech.spans if s.style == "green")
    assert green == "yes<|im_end|>"


def test_the_verb_prints_remedies_and_says_whether_all_is_well(healthy, first_line):
    console = Console(record=True, width=200)
    assert consult(healthy, console)
    first_line("{oops")
    assert not consult(healthy, console)
    shown = console.export_text()
    assert "✓ the audio matters" in shown
    assert "✗ conversations can be read" in shown and "→ correct the line" in shown
