import json
from dataclasses import replace

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from voicetextblender.batch import collate
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.config import ModelConfig
from voicetextblender.eval.scores import Score
from voicetextblender.export import card, export
from voicetextblender.model import modeling
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor

TALK = Conversation(
    "talk", (user("what?", Audio("a")), assistant("hello"), user(Audio("b"), "again", Audio("c")))
)


@pytest.fixture
def saved(tmp_path, build, processor):
    def save(llm="llama", **others):
        model = build(llm, **others)
        folder = tmp_path / "run/model"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return model, folder

    return save


def logits(model, processor, sound):
    clips = [sound(0.5), sound(0.7, 1), sound(0.3, 2)]
    batch = collate([processor.encode(TALK, clips, purpose="answer")], processor.num_mel_bins)
    with torch.no_grad():
        audio, _ = model.embed_audio(batch.features, batch.clip_lens)
        embeds = model.embed(batch.input_ids, audio)
        return model.project(model.decode(embeds[None], batch.position_ids[None], batch.seq_lens))


@pytest.mark.parametrize("llm", ["llama", "qwen2", "gemma", "gemma2"])
def test_a_merged_model_answers_as_before_and_needs_no_parts(
    llm, saved, processor, sound, tmp_path, monkeypatch
):
    model, folder = saved(llm, train={"encoder": "lora"})
    export(folder, "merged", tmp_path / "out", "float32")
    monkeypatch.setattr(modeling, "resolve", lambda name: pytest.fail(f"asked for {name}"))
    alone = SpeechLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert not any("lora" in name for name, _ in alone.named_parameters())
    read = SpeechLMProcessor.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(
        logits(alone, read, sound), logits(model, processor, sound), rtol=1e-4, atol=1e-4
    )


def test_merging_rounds_once(saved, processor, sound, tmp_path):
    model, folder = saved()
    export(folder, "vllm", tmp_path / "out")
    merged = SpeechLM.from_pretrained(tmp_path / "out").state_dict()
    name = "model.layers.0.self_attn.q_proj"
    layer = model.llm.get_submodule(name)
    exact = layer.base_layer.weight + layer.get_delta_weight("vtb")
    assert torch.equal(merged[f"llm.{name}.weight"], exact.to(torch.bfloat16))


def test_an_adapter_is_what_training_saved_without_the_state_of_the_run(saved, tmp_path):
    _, folder = saved()
    (folder / "optimizer.safetensors").write_bytes(b"much")
    (folder / "position.json").write_text("{}")
    export(folder, "adapter", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "lora", "README.md"} <= names
    assert not names & {"optimizer.safetensors", "position.json"}
    SpeechLM.from_pretrained(tmp_path / "out")


def test_a_merged_folder_with_a_tensor_too_few_is_refused(saved, tmp_path):
    _, folder = saved()
    export(folder, "merged", tmp_path / "out")
    weights = load_file(tmp_path / "out/model.safetensors")
    del weights["adapter.down.bias"]
    save_file(weights, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing keys: 'adapter.down.bias'.*export the model"):
        SpeechLM.from_pretrained(tmp_path / "out")


def test_a_card_says_parts_scores_and_what_it_learned_from(saved, tmp_path):
    _, folder = saved()
    recipe = {
        "run": str(folder.parent),
        "blend": [
            {"name": "asr-real", "path": "a.jsonl", "weight": 3},
            {"name": "text", "path": "b.jsonl", "weight": 1},
        ],
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "provenance.json").write_text(json.dumps({"torch": "2.13"}))
    row = Score(
        *("prompts", "ours", "wer", 0.1, 0.05, 0.2, 4, None, None, None),
        *("low", "%", "asr", "real", False, "basic-1", "greedy", "m", "0", 12.0, 1.0),
    )
    rows = [row, replace(row, by="lang", group="en")]
    (folder.parent / "eval").mkdir()
    (folder.parent / "eval/results.json").write_bytes(TypeAdapter(list[Score]).dump_json(rows))
    text = card(folder)
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == ["llama", "whisper"] and front["language"] == ["en"]
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "wer", "value": 10.0}]
    assert "| prompts | real | no | 4 | 10.0 % | 5.0 to 20.0 |" in text
    assert "| asr-real | 75% |" in text and "| torch | 2.13 |" in text


def test_a_card_names_packaged_parts_by_their_hub_names_and_licence(tmp_path):
    SpeechLMConfig(settings=ModelConfig().model_dump()).save_pretrained(tmp_path / "model")
    front = yaml.safe_load(card(tmp_path / "model").split("---")[1])
    assert front["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct", "openai/whisper-base"]
    assert front["license"] == "other"  # Apache-2.0 and MIT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "onnx"}, "'onnx' is no form of export; use one of merged, vllm"),
        ({"dtype": "int8"}, "'int8' is no dtype to export; use one of bfloat16"),
        ({"model": "nowhere"}, "nowhere: no model here"),
        ({"out": "run"}, "run: is there already and not empty"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_sentence(saved, tmp_path, change, message):
    _, folder = saved()
    given = {"model": folder, "form": "merged", "out": tmp_path / "out", "dtype": "bfloat16"}
    given |= {key: tmp_path / v if key in ("model", "out") else v for key, v in change.items()}
    with pytest.raises(ValueError, match=message):
        export(**given)
    assert not (tmp_path / "out").exists()
