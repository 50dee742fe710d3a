import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, WhisperConfig

from voicetextblender.batch import collate
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.config import ModelConfig
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.modeling import SpeechLM

SHAPES = ["llama", "qwen2", "gemma", "gemma2"]


def tokens(n, seed=0):
    return torch.randint(0, 300, (1, n), generator=torch.Generator().manual_seed(seed))


def forward(model, batch):
    """The logits (N, V) of a packed batch, through the usual `forward`."""
    return model(
        batch.input_ids[None],
        position_ids=batch.position_ids[None],
        input_features=batch.features if batch.clip_lens else None,
        clip_lens=batch.clip_lens,
        seq_lens=batch.seq_lens,
    ).logits[0]


def spoken(model):
    """The logits of a row with two clips, of whatever encoder."""
    features = torch.randn(70, 8, generator=torch.Generator().manual_seed(0))
    per_embedding = model.encoder.subsampling * model.adapter.stack
    first, second = ([model.config.audio_token_id] * -(-n // per_embedding) for n in (40, 30))
    ids = torch.tensor([[5, *first, 6, *second, 7]])
    return model(ids, input_features=features, clip_lens=(40, 30)).logits


@pytest.fixture(scope="module")
def samples(processor, sound):
    """One conversation with two clips, one without, one with a clip."""
    clip = Audio("a.wav", text="hello")
    spoken = Conversation("spoken", (user("Say:", clip, "and", clip), assistant("hello")), "asr")
    text = Conversation("text", (user("What is it?"), assistant("A table.")))
    last = Conversation("last", (user(clip), assistant("yes")), "sqa")
    clips = {"spoken": [sound(0.31), sound(0.5, 1)], "text": [], "last": [sound(0.2, 2)]}
    return [processor.encode(c, clips[c.id], "all") for c in (spoken, text, last)]


@pytest.fixture
def base(parts):
    def load(llm, dtype=torch.float32):
        return AutoModelForCausalLM.from_pretrained(parts / llm, dtype=dtype).eval()

    return load


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_with_the_voice_off_the_logits_are_the_base_models_bit_for_bit(
    llm, dtype, build, base, tmp_path
):
    build(llm).save_pretrained(tmp_path)
    model = SpeechLM.from_pretrained(tmp_path, dtype=dtype)
    ids = tokens(14)
    with model.voice_off():
        assert torch.equal(model(ids).logits, base(llm, dtype)(ids).logits)
    assert not torch.equal(model(ids).logits, base(llm, dtype)(ids).logits)


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_beyond_the_sliding_window_too(llm, build, base):
    model, ids = build(llm), tokens(90)
    with model.voice_off():
        torch.testing.assert_close(model(ids).logits, base(llm)(ids).logits)


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_embedding_decoding_and_projecting_is_what_the_llm_does_with_tokens(llm, build, base):
    model, ids = build(llm), tokens(14)
    embeds = model.embed(ids[0], torch.zeros(0, 32))
    with model.voice_off():
        hidden = model.decode(embeds[None], torch.arange(14)[None], (14,))
    assert torch.equal(model.project(hidden), base(llm)(ids).logits)


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_a_conversation_has_the_same_logits_alone_and_beside_speech(llm, build, samples):
    """In the paper's code speech batches skipped Gemma's embedding scale, and text batches not."""
    model = build(llm)
    together = collate(samples, num_mel_bins=8)
    packed = forward(model, together).split(together.seq_lens)
    for sample, logits in zip(samples, packed, strict=True):
        torch.testing.assert_close(
            logits, forward(model, collate([sample], 8)), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_speech_enters_where_text_embeddings_enter(llm, build, samples, processor):
    model, batch = build(llm), collate(samples, 8)
    audio, lens = model.embed_audio(batch.features, batch.clip_lens)
    is_audio = batch.input_ids == processor.audio_token_id
    assert sum(lens) == len(audio) == is_audio.sum()
    seen = []
    hook = (
        model.llm.get_decoder()
        .layers[0]
        .register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    )
    forward(model, batch)
    hook.remove()
    text = model.llm.get_input_embeddings()(batch.input_ids)
    assert torch.equal(seen[0][0][is_audio], audio)
    assert torch.equal(seen[0][0][~is_audio], text[~is_audio])


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_speech_starts_at_the_scale_at_which_the_llm_sees_text(llm, tiny, processor):
    """Gemma multiplies its table by the root of its width; speech must match the product."""
    model = SpeechLM.from_parts(tiny(llm), processor.audio_token_id, torch.float32)
    audio, _ = model.embed_audio(torch.randn(800, 8), (800,))
    text = model.llm.get_input_embeddings()(torch.arange(300))
    rms = audio.pow(2).mean().sqrt() / text.pow(2).mean().sqrt()
    assert rms.item() == pytest.approx(1, rel=0.3)  # 512 random weights


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_the_ctc_logits_start_with_variance_one(llm, tiny, processor):
    model = SpeechLM.from_parts(tiny(llm), processor.audio_token_id, torch.float32)
    audio, _ = model.embed_audio(torch.randn(800, 8), (800,))
    logits = audio @ model.table.T * model.ctc_scale
    assert logits.std().item() == pytest.approx(1, rel=0.3)


@torch.no_grad()
def test_rows_padded_in_the_usual_way_give_the_logits_of_each_row(build, samples):
    model = build()
    ids = torch.zeros(2, 20, dtype=torch.long)
    mask = torch.zeros_like(ids)
    ids[0, 8:], ids[1, :20] = tokens(12), tokens(20, seed=1)  # the padding may stand on the left
    mask[0, 8:], mask[1, :20] = 1, 1
    logits = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(logits[0, 8:], model(tokens(12)).logits[0])
    torch.testing.assert_close(logits[1], model(tokens(20, seed=1)).logits[0])
    assert not logits[0, :8].any()


@torch.no_grad()
def test_padded_rows_with_speech_give_the_logits_of_the_packed_row(build, samples):
    model, batch = build(), collate(samples, 8)
    rows = batch.input_ids.split(batch.seq_lens)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor(batch.seq_lens)[:, None]
    logits = model(
        ids, attention_mask=mask, input_features=batch.features, clip_lens=batch.clip_lens
    ).logits
    torch.testing.assert_close(logits[mask], forward(model, batch))


@torch.no_grad()
def test_the_loss_is_the_mean_over_labels_that_are_scored(build):
    model, ids = build(), tokens(10)
    labels = ids.clone()
    labels[0, :4] = -100
    out = model(ids, labels=labels)
    torch.testing.assert_close(out.loss, cross_entropy(out.logits[0, 3:9], ids[0, 4:]))


def test_a_packed_row_needs_positions(build):
    with pytest.raises(ValueError, match="a packed row .seq_lens. needs position_ids"):
        build()(tokens(4), seq_lens=(4,))


def test_a_wrong_number_of_audio_positions_is_refused(build, processor, samples):
    batch = collate(samples, 8)
    with pytest.raises(ValueError, match="audio positions in the tokens, but"):
        build()(
            torch.full((1, 3), processor.audio_token_id),
            input_features=batch.features,
            clip_lens=batch.clip_lens,
        )


WAYS = [
    {"llm": "lora", "encoder": "frozen"},
    {"llm": "frozen", "encoder": "frozen"},
    {"llm": "lora", "encoder": "lora"},
    {"llm": "lora", "encoder": "full"},
]


@pytest.mark.parametrize("train", WAYS, ids=lambda way: "-".join(way.values()))
@pytest.mark.parametrize("encoder", ["whisper", "parakeet"])
def test_what_the_settings_name_trains_and_nothing_else(train, encoder, build):
    model = build(encoder=encoder, train=train)
    expected = {"adapter"}
    expected |= {"lora"} if train["llm"] == "lora" else set()
    expected |= {"encoder"} if train["encoder"] == "full" else set()
    expected |= {"encoder_lora"} if train["encoder"] == "lora" else set()
    assert set(model.trained_parts()) == expected
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(n.startswith("adapter.") for n in trained if "lora_" not in n and "encoder" not in n)
    assert any(n.startswith("llm.") for n in trained) == (train["llm"] == "lora")
    assert any(n.startswith("encoder.") for n in trained) == (train["encoder"] != "frozen")
    assert any(n.startswith("encoder.") and "lora_" in n for n in trained) == (
        train["encoder"] == "lora"
    )
    assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if n in trained)
    spoken(model).logsumexp(-1).sum().backward()
    without = {n for n in trained if model.get_parameter(n).grad is None}
    assert without == set()


@pytest.mark.parametrize("train", WAYS, ids=lambda way: "-".join(way.values()))
@pytest.mark.parametrize("encoder", ["whisper", "parakeet"])
@torch.no_grad()
def test_a_saved_model_is_loaded_with_the_very_same_tensors(train, encoder, build, tmp_path):
    model = build(encoder=encoder, train=train)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(loaded, SpeechLM) and not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(spoken(loaded), spoken(model))


def test_a_saved_model_holds_no_pickle(build, tmp_path):
    build().save_pretrained(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_saving_and_loading_is_quiet(build, tmp_path, capfd, recwarn):
    build().save_pretrained(tmp_path)
    SpeechLM.from_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("llm", SHAPES)
@torch.no_grad()
def test_peft_alone_loads_the_low_rank_updates_onto_the_llm(llm, build, base, tmp_path):
    model, ids = build(llm), tokens(14)
    model.save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(base(llm), tmp_path / "lora")
    torch.testing.assert_close(theirs(ids).logits, model(ids).logits)


def test_a_model_is_loaded_in_the_precision_that_is_asked_for(build, tmp_path):
    build(train={"encoder": "full"}).save_pretrained(tmp_path)
    model = SpeechLM.from_pretrained(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    frequencies = [b for n, b in model.named_buffers() if n.endswith("inv_freq")]
    assert frequencies and all(b.dtype == torch.float32 for b in frequencies)


@torch.no_grad()
def test_the_voice_comes_back_when_it_was_switched_off(build):
    model, ids = build(), tokens(9)
    before, trained = model(ids).logits, model.trained_parts().keys()
    with pytest.raises(RuntimeError), model.voice_off():
        raise RuntimeError
    assert torch.equal(model(ids).logits, before)
    assert model.trained_parts().keys() == trained


@torch.no_grad()
def test_a_frozen_encoder_does_not_change_while_others_train(build):
    """Parakeet would skip layers at random and learn batch statistics that no one saves."""
    model = build(encoder="parakeet")
    features = torch.randn(120, 8)
    before, _ = model.embed_audio(features, (80, 40))
    model.train()
    during, _ = model.embed_audio(features, (80, 40))
    model.eval()
    after, _ = model.embed_audio(features, (80, 40))
    assert torch.equal(before, after)
    torch.testing.assert_close(during, before)  # the adapter of the tests has no dropout


def damage(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize("file", ["model.safetensors", "lora/adapter_model.safetensors"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop(min(tensors)),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update({min(tensors): torch.zeros(1)}),
    ],
    ids=["missing", "left over", "other shape"],
)
def test_a_tensor_that_does_not_fit_is_refused(file, change, build, tmp_path):
    build().save_pretrained(tmp_path)
    damage(tmp_path / file, change)
    with pytest.raises(ValueError, match=f"{file} does not fit the settings of the model: '"):
        SpeechLM.from_pretrained(tmp_path)


def test_a_checkpoint_without_its_low_rank_updates_is_refused(build, tmp_path):
    build().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "lora")
    with pytest.raises(ValueError, match="adapter_model.safetensors: no such file"):
        SpeechLM.from_pretrained(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no model here .no model.safetensors.; name the folder"):
        SpeechLM.from_pretrained(tmp_path)


def test_an_llm_cannot_be_the_encoder(tiny):
    with pytest.raises(ValueError, match="a speech encoder of kind 'qwen2' is not known"):
        SpeechLM.from_parts(tiny(encoder="qwen2"), 0)


def test_the_configuration_says_what_the_model_is_made_of(build, tiny, tmp_path):
    build().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "voicetextblender"
    assert config["architectures"] == ["SpeechLM"]
    assert config["settings"] == tiny().model_dump()
    assert config["text_config"]["model_type"] == "llama"
    assert config["audio_config"]["model_type"] == "whisper"


def test_a_model_is_built_from_its_configuration_alone(build):
    config = build().config
    model = AutoModel.from_config(config)
    assert isinstance(model, SpeechLM)
    assert model(tokens(5)).logits.shape == (1, 5, config.text_config.vocab_size)


def test_the_generator_of_transformers_is_not_offered():
    """It hands over a cache that `forward` knows nothing of: the answers were rubbish, silently."""
    assert not hasattr(SpeechLM, "generate")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`")
def test_compiled_layers_give_the_values_and_gradients_of_others():
    torch.manual_seed(0)
    lora = {"encoder": "lora", "llm": "lora"}
    model = SpeechLM(
        SpeechLMConfig(
            settings=ModelConfig.model_validate({"train": lora}).model_dump(),
            text_config=LlamaConfig(hidden_size=128, num_attention_heads=2, num_hidden_layers=2),
            audio_config=WhisperConfig(
                d_model=128,
                encoder_attention_heads=2,
                encoder_layers=2,
                decoder_attention_heads=2,
            ),
            audio_token_id=5,
        )
    )
    model = torch.nn.Module.to(model, "cuda").train()
    parameters = [p for own in model.trained_parts().values() for p in own]
    results = []
    for compiled in (False, True):
        if compiled:
            model.compile_layers()
        for clips, seqs in (((90, 300), (70, 30)), ((200, 60, 100), (90, 20, 10))):
            torch.manual_seed(1)
            features = torch.randn(sum(clips), 80, device="cuda")
            embeds = torch.randn(1, sum(seqs), 128, device="cuda", dtype=torch.bfloat16)
            positions = torch.arange(sum(seqs), device="cuda")[None]
            with torch.autocast("cuda", torch.bfloat16):
                frames, _ = model.encode(features, clips)
                hidden = model.decode(embeds, positions, seqs)
                loss = frames.float().square().mean() + hidden.float().square().mean()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            norm = torch.stack([g.float().norm() for g in gradients if g is not None]).norm()
            results.append((loss.item(), norm.item()))
    for plain, ours in zip(results[:2], results[2:], strict=True):
        assert ours == pytest.approx(plain, rel=0.05)
