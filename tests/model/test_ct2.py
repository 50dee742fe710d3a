import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from voicetextblender.model.ct2 import convert_whisper, read_model_bin

DTYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
SPECIALS = [
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"),
]
BYTES = dict(zip("Ġthe", range(4), strict=True)) | {"Ġt": 4, "he": 5, "Ġthe": 6}
NUM_TIMES = 1501


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(BYTES) + len(SPECIALS) + NUM_TIMES,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=10,
        max_target_positions=12,
        pad_token_id=7,
        bos_token_id=7,
        eos_token_id=7,
        decoder_start_token_id=8,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    for name, weight in model.named_parameters():  # biases and norms start at 0 and 1: tell nothing
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.3)
    return model


def ct2_tensors(model):
    """Return a Whisper model as CTranslate2 names and joins it."""
    tensors = {}

    def put(name, *modules):
        weights = [module.weight for module in modules]
        norm = isinstance(modules[0], torch.nn.LayerNorm)
        tensors[f"{name}/{'gamma' if norm else 'weight'}"] = torch.cat(weights)
        if not isinstance(modules[0], torch.nn.Embedding):
            biases = [
                torch.zeros(len(module.weight)) if module.bias is None else module.bias
                for module in modules
            ]
            tensors[f"{name}/{'beta' if norm else 'bias'}"] = torch.cat(biases)

    for side, stack in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
        heads = stack.layers[0].self_attn.num_heads
        tensors[f"{side}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        tensors[f"{side}/position_encodings/encodings"] = stack.embed_positions.weight
        put(f"{side}/layer_norm", stack.layer_norm)
        for n, layer in enumerate(stack.layers):
            here = f"{side}/layer_{n}"
            own = layer.self_attn
            put(f"{here}/self_attention/layer_norm", layer.self_attn_layer_norm)
            put(f"{here}/self_attention/linear_0", own.q_proj, own.k_proj, own.v_proj)
            put(f"{here}/self_attention/linear_1", own.out_proj)
            put(f"{here}/ffn/layer_norm", layer.final_layer_norm)
            put(f"{here}/ffn/linear_0", layer.fc1)
            put(f"{here}/ffn/linear_1", layer.fc2)
            if side == "decoder":
                cross = layer.encoder_attn
                put(f"{here}/attention/layer_norm", layer.encoder_attn_layer_norm)
                put(f"{here}/attention/linear_0", cross.q_proj)
                put(f"{here}/attention/linear_1", cross.k_proj, cross.v_proj)
                put(f"{here}/attention/linear_2", cross.out_proj)
    put("encoder/conv1", model.model.encoder.conv1)
    put("encoder/conv2", model.model.encoder.conv2)
    put("decoder/embeddings", model.model.decoder.embed_tokens)
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def write_model_bin(path, tensors):
    def string(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, value in tensors.items():
        out += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", DTYPES[value.dtype.name], value.nbytes) + value.tobytes()
    aliases = string("decoder/projection/weight") + string("decoder/embeddings/weight")
    path.write_bytes(out + struct.pack("<I", 1) + aliases)


def write_tokenizer(path: Path, older_kind: bool):
    merges = [["Ġ", "t"], ["h", "e"], ["Ġt", "he"]]
    vocab = dict(BYTES)
    if older_kind:
        vocab["<|endoftext|>"] = len(BYTES)
        merges = [" ".join(merge) for merge in merges[1:]]
    added = [
        {"id": n, "content": token, "special": True}
        for n, token in enumerate(SPECIALS, start=len(BYTES))
    ]
    tables = {"added_tokens": added, "model": {"vocab": vocab, "merges": merges}}
    path.write_text(json.dumps(tables), "utf-8")


@pytest.fixture
def convert(tmp_path):
    def convert(tensors, older_kind=True):
        write_model_bin(tmp_path / "model.bin", tensors)
        write_tokenizer(tmp_path / "tokenizer.json", older_kind)
        known = {
            "lang_ids": [9, 10],
            "suppress_ids": [1],
            "suppress_ids_begin": [0],
            "alignment_heads": [[0, 1]],
        }
        (tmp_path / "config.json").write_text(json.dumps(known))
        folder = tmp_path / "older" if older_kind else tmp_path / "newer"
        folder.mkdir()
        files = (tmp_path / name for name in ("model.bin", "tokenizer.json", "config.json"))
        convert_whisper(*files, folder)
        return folder

    return convert


def test_a_converted_model_is_the_model_that_was_written(model, convert):
    folder = convert(ct2_tensors(model))
    read, info = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    inputs = {"input_features": torch.randn(1, 8, 20), "decoder_input_ids": torch.tensor([[8, 3]])}
    assert torch.equal(read(**inputs).logits, model(**inputs).logits)


def test_weights_keep_the_dtype_of_the_file(model, convert):
    folder = convert(ct2_tensors(model.half()))
    assert WhisperForConditionalGeneration.from_pretrained(folder).dtype == torch.float16


def test_generate_finds_languages_tasks_and_suppressed_tokens(model, convert):
    read = WhisperForConditionalGeneration.from_pretrained(convert(ct2_tensors(model)))
    settings = read.generation_config
    assert settings.lang_to_id == {"<|en|>": 9, "<|de|>": 10}
    assert settings.task_to_id == {"translate": 11, "transcribe": 12}
    # Without it a model left to detect the language is never told to transcribe, and rambles.
    assert settings.task == "transcribe"
    assert (settings.no_timestamps_token_id, settings.prev_sot_token_id) == (16, 14)
    assert (settings.suppress_tokens, settings.begin_suppress_tokens) == ([1], [0])
    assert settings.alignment_heads == [[0, 1]]


def test_the_lost_first_merge_of_the_older_tokenizer_is_put_back(model, convert):
    tokenizer = WhisperProcessor.from_pretrained(convert(ct2_tensors(model))).tokenizer
    assert tokenizer.tokenize(" the") == ["Ġthe"]


def test_both_kinds_of_tokenizer_end_up_the_same(model, convert):
    older, newer = (convert(ct2_tensors(model), older_kind) for older_kind in (True, False))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (older / name).read_text() == (newer / name).read_text()


def test_time_tokens_follow_the_special_ones_and_are_no_special_tokens(model, convert):
    tokenizer = WhisperProcessor.from_pretrained(convert(ct2_tensors(model))).tokenizer
    first, last = tokenizer.convert_tokens_to_ids(["<|0.00|>", "<|30.00|>"])
    assert (first, last) == (17, 17 + NUM_TIMES - 1)
    assert tokenizer.all_special_ids == list(range(7, 17))
    assert tokenizer.decode([6, 7], skip_special_tokens=True) == " the"


def test_a_file_that_ends_too_soon_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    write_model_bin(path, {"encoder/conv1/bias": np.ones(100, np.float16)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match="model.bin: ends in the middle of a tensor.*fetch it again"
    ):
        read_model_bin(path)
