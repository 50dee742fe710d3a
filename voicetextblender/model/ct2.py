"""CTranslate2's `model.bin`: a Whisper model becomes a Hugging Face folder.

Every size is read off the tensors, so one mapping serves every float Whisper. Of the file, integers
are little-endian, and a string is a u16 length that counts a closing NUL, then the bytes.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)

# CTranslate2 joins the projections that read the same input: one row block for each name here.
_MODULES = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "embeddings": ("embed_tokens",),
    "position_encodings": ("embed_positions",),
    "layer_norm": ("layer_norm",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_KINDS = {
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "encodings": "weight",
}


def read_model_bin(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `model.bin` by name, without its aliases.

    Raises ValueError if the file ends before its last tensor.
    """
    with path.open("rb") as stream:

        def data(size: int) -> bytes:
            chunk = stream.read(size)
            if len(chunk) < size:
                raise ValueError(
                    f"{path}: ends in the middle of a tensor, so it is no whole CTranslate2 "
                    f"model; fetch it again"
                )
            return chunk

        def number(form: str) -> int:
            return struct.unpack(f"<{form}", data(struct.calcsize(form)))[0]

        def string() -> str:
            return data(number("H")).rstrip(b"\0").decode()

        tensors = {}
        number("I")  # version of the format
        string()  # kind of model
        number("I")  # its revision
        for _ in range(number("I")):
            name = string()
            shape = [number("I") for _ in range(number("B"))]
            dtype = _DTYPES[number("B")]
            tensors[name] = np.frombuffer(data(number("I")), dtype).reshape(shape)
        return tensors


def convert_whisper(model_bin: Path, tokenizer_json: Path, settings: Path, folder: Path) -> None:
    """Write a Whisper model, its generation settings, features and tokenizer to a folder.

    `settings` is the `config.json` that CTranslate2 puts beside `model.bin`: suppressed tokens,
    languages, alignment heads. Weights keep the dtype that they have in the file.
    """
    from safetensors.numpy import save_file
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    tensors = read_model_bin(model_bin)
    state = dict(_state(tensors))
    tokenizer = _tokenizer(tokenizer_json)
    width, num_mels, _ = state["model.encoder.conv1.weight"].shape
    ffn_width = len(state["model.encoder.layers.0.fc1.bias"])
    ids = tokenizer.get_vocab()
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        dtype=state["model.encoder.conv1.weight"].dtype.name,
        vocab_size=len(state["model.decoder.embed_tokens.weight"]),
        num_mel_bins=num_mels,
        d_model=width,
        encoder_layers=_num_layers(state, "encoder"),
        decoder_layers=_num_layers(state, "decoder"),
        encoder_attention_heads=int(tensors["encoder/num_heads"]),
        decoder_attention_heads=int(tensors["decoder/num_heads"]),
        encoder_ffn_dim=ffn_width,
        decoder_ffn_dim=ffn_width,
        max_source_positions=len(state["model.encoder.embed_positions.weight"]),
        max_target_positions=len(state["model.decoder.embed_positions.weight"]),
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        begin_suppress_tokens=None,  # in the generation config, where generate() looks
    )
    known = json.loads(settings.read_text("utf-8"))
    languages = tokenizer.convert_ids_to_tokens(known["lang_ids"])
    generation = GenerationConfig(
        max_length=config.max_target_positions,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=known["suppress_ids"],
        begin_suppress_tokens=known["suppress_ids_begin"],
        alignment_heads=known["alignment_heads"],
        is_multilingual=True,
        task="transcribe",  # unless the caller asks for "translate"
        lang_to_id=dict(zip(languages, known["lang_ids"], strict=True)),
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        max_initial_timestamp_index=50,
        return_timestamps=False,
    )
    config.save_pretrained(folder)
    generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=num_mels).save_pretrained(folder)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def _state(tensors: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights under their Hugging Face names, joined projections taken apart."""
    for name, value in tensors.items():
        if value.ndim == 0:  # a setting, such as num_heads
            continue
        path = re.sub(r"/layer_(\d+)/", r"/layers.\1/", name).split("/")
        layer = f"{path.pop(1)}." if path[1].startswith("layers.") else ""
        side, *module, kind = path
        modules = _MODULES["/".join(module)]
        for target, rows in zip(modules, np.split(value, len(modules)), strict=True):
            if target.endswith("k_proj") and kind == "bias":
                continue  # zeros that CTranslate2 adds: Whisper's keys have no bias
            yield f"model.{side}.{layer}{target}.{_KINDS[kind]}", rows


def _num_layers(state: Mapping[str, np.ndarray], side: str) -> int:
    return sum(f"model.{side}.layers.{n}.fc1.weight" in state for n in range(len(state)))


def _tokenizer(source: Path) -> "WhisperTokenizer":
    """Build Whisper's tokenizer from a `tokenizer.json` of either kind in circulation."""
    from transformers import AddedToken, WhisperTokenizer

    tables = json.loads(source.read_text("utf-8"))
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in tables["model"]["merges"]]
    # The older kind lost its first merge, taken for a header: " the" would fall into two tokens.
    if merges[0] != ("Ġ", "t"):
        merges.insert(0, ("Ġ", "t"))
    specials = [
        token["content"].replace("nocaptions", "nospeech")  # as the hub has named it since
        for token in tables["added_tokens"]
        if token["special"]
    ]
    tokenizer = WhisperTokenizer(
        vocab={t: n for t, n in tables["model"]["vocab"].items() if t not in specials},
        merges=merges,
        pad_token="<|endoftext|>",
        extra_special_tokens=specials,
        model_max_length=1024,
    )
    times = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]  # seconds
    tokenizer.add_tokens([AddedToken(time, special=False, normalized=True) for time in times])
    return tokenizer
