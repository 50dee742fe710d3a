"""GGUF files: a quantised causal language model becomes a Hugging Face folder.

Two families are known, those of the packaged parts: Llama (SmolLM2) and Qwen2. Weights and
tokenizer are read here rather than by transformers, which keeps a GGUF's vocabulary but not its
pre-tokenizer: SmolLM2 would read "2024" as one piece, where it was trained on four digits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFReader
    from torch import Tensor
    from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # values of tokenizer.ggml.token_type

# Qwen2's own split: contractions, words with a leading mark, single digits, marks, white space.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_MODULES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Write the model of a GGUF file to a folder, dequantised to bfloat16, its output head tied.

    Raises ValueError if the `gguf` package is not installed.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise ValueError(
            f"{gguf_file.name}: the 'gguf' package, which reads it, is not installed; "
            f'run: pip install "voicetextblender[parts]"'
        ) from None
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    reader = GGUFReader(gguf_file)
    config = _config(reader)
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(folder)
    _tokenizer(reader).save_pretrained(folder)
    save_file(dict(_weights(reader, config)), folder / "model.safetensors", {"format": "pt"})


def _config(reader: "GGUFReader") -> "LlamaConfig | Qwen2Config":
    from transformers import LlamaConfig, Qwen2Config

    fields = reader.fields
    family = fields["general.architecture"].contents()
    heads = fields[f"{family}.attention.head_count"].contents()
    config_class, class_name = {
        "llama": (LlamaConfig, "LlamaForCausalLM"),
        "qwen2": (Qwen2Config, "Qwen2ForCausalLM"),
    }[family]
    return config_class(
        architectures=[class_name],
        dtype="bfloat16",
        vocab_size=len(fields["tokenizer.ggml.tokens"].contents()),
        hidden_size=fields[f"{family}.embedding_length"].contents(),
        intermediate_size=fields[f"{family}.feed_forward_length"].contents(),
        num_hidden_layers=fields[f"{family}.block_count"].contents(),
        num_attention_heads=heads,
        num_key_value_heads=fields[f"{family}.attention.head_count_kv"].contents(),
        max_position_embeddings=fields[f"{family}.context_length"].contents(),
        rms_norm_eps=fields[f"{family}.attention.layer_norm_rms_epsilon"].contents(),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": fields[f"{family}.rope.freq_base"].contents(),
        },
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"].contents(),
        eos_token_id=fields["tokenizer.ggml.eos_token_id"].contents(),
        pad_token_id=fields["tokenizer.ggml.padding_token_id"].contents(),
    )


def _weights(
    reader: "GGUFReader", config: "LlamaConfig | Qwen2Config"
) -> Iterator[tuple[str, "Tensor"]]:
    """Yield each weight under its Hugging Face name, in bfloat16."""
    import torch
    from gguf import dequantize

    # A file may hold the tied matrix twice; its copy for the output is the finer of the two.
    tied = "output" if any(t.name == "output.weight" for t in reader.tensors) else "token_embd"
    for tensor in reader.tensors:
        path, kind = tensor.name.rsplit(".", 1)
        if path == "token_embd" and tied != path:
            continue
        value = torch.tensor(dequantize(tensor.data, tensor.tensor_type), dtype=torch.bfloat16)
        *block, module = ["token_embd"] if path == tied else path.split(".")
        layer = f"layers.{block[1]}." if block else ""
        if config.model_type == "llama" and module in ("attn_q", "attn_k"):
            value = _half_rotated(value, config.hidden_size // config.num_attention_heads)
        yield f"model.{layer}{_MODULES[module]}.{kind}", value


def _half_rotated(weight: "Tensor", head_dim: int) -> "Tensor":
    """Reorder each head's rows from llama.cpp's pairs (2i, 2i + 1) to (i, i + head_dim / 2)."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _tokenizer(reader: "GGUFReader") -> "PreTrainedTokenizerFast":
    """Build the tokenizer from the file's vocabulary, merges, token types and chat template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
    from transformers import PreTrainedTokenizerFast

    fields = reader.fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    types: list[int] = fields["tokenizer.ggml.token_type"].contents()
    merges: list[str] = fields["tokenizer.ggml.merges"].contents()
    family = fields["general.architecture"].contents()
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    used = {token: n for n, token in enumerate(tokens) if types[n] != _UNUSED}
    tokenizer = Tokenizer(BPE(vocab=used, merges=pairs))
    match fields["tokenizer.ggml.pre"].contents():
        case "smollm":
            splits = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        case "qwen2":
            splits = [
                Split(Regex(_QWEN2_SPLIT), "isolated"),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
            tokenizer.normalizer = normalizers.NFC()
        case other:
            raise AssertionError(f"no packaged part has the pre-tokenizer {other!r}")
    tokenizer.pre_tokenizer = Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    named = {
        f"{name}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=fields["tokenizer.chat_template"].contents(),
        model_max_length=fields[f"{family}.context_length"].contents(),
        clean_up_tokenization_spaces=False,
        **named,
    )
