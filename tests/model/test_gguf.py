import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from voicetextblender.model.gguf import convert_gguf

gguf = pytest.importorskip("gguf")

CONTROL, USER_DEFINED, UNUSED, NORMAL = 3, 4, 5, 1
TOKENS = [*"0123456789abĠ", "20", "ab", "Ġa", "<|end|>", "<|start|>", "<tool>", "[PAD]"]
TYPES = [NORMAL] * 16 + [CONTROL, CONTROL, USER_DEFINED, UNUSED]
MERGES = ["2 0", "a b", "Ġ a"]
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}


def tiny_model(family):
    torch.manual_seed(0)
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[family]
    config = config_class(
        vocab_size=len(TOKENS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=True,
    )
    model = model_class(config).eval()
    for weight in model.parameters():  # values that bfloat16 holds exactly
        weight.data = torch.randn_like(weight).bfloat16().float()
    return model


def write_gguf(path, model, family, pre, output=None):
    """Write a model as llama.cpp's converter does, unquantised."""
    config = model.config
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(TOKENS.index("<|start|>"))
    writer.add_eos_token_id(TOKENS.index("<|end|>"))
    writer.add_pad_token_id(TOKENS.index("<|end|>"))
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.model.state_dict().items():
        *path, kind = name.split(".")
        block, module = (path[1], ".".join(path[2:])) if path[0] == "layers" else (None, path[0])
        target = NAMES[module]
        if family == "llama" and target in ("attn_q", "attn_k"):  # llama.cpp rotates pairs
            weight = weight.unflatten(0, (-1, 2, 4)).transpose(1, 2).flatten(0, 2)
        prefix = "" if block is None else f"blk.{block}."
        writer.add_tensor(f"{prefix}{target}.{kind}", weight.float().contiguous().numpy())
    if output is not None:
        writer.add_tensor("output.weight", output.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def convert(tmp_path):
    def convert(model, family="llama", pre="smollm", output=None):
        write_gguf(tmp_path / "model.gguf", model, family, pre, output)
        folder = tmp_path / "converted"
        folder.mkdir()
        convert_gguf(tmp_path / "model.gguf", folder)
        return folder

    return convert


@pytest.mark.parametrize(("family", "pre"), [("llama", "smollm"), ("qwen2", "qwen2")])
def test_a_converted_model_is_the_model_that_was_written(family, pre, convert):
    model = tiny_model(family)
    folder = convert(model, family, pre)
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16
    read, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert type(read) is type(model)
    assert not any(info.values())
    ids = torch.arange(12).unsqueeze(0)
    torch.testing.assert_close(read(ids).logits, model(ids).logits)


def test_the_output_head_is_tied_to_the_finer_copy_of_the_two(convert):
    model = tiny_model("llama")
    finer = model.get_input_embeddings().weight.detach() + 1
    read = AutoModelForCausalLM.from_pretrained(convert(model, output=finer))
    assert read.lm_head.weight is read.model.embed_tokens.weight
    assert torch.equal(read.lm_head.weight, finer.bfloat16())


def test_generation_stops_at_the_end_of_turn_token(convert):
    read = AutoModelForCausalLM.from_pretrained(convert(tiny_model("llama")))
    assert read.generation_config.eos_token_id == TOKENS.index("<|end|>")


@pytest.mark.parametrize(("family", "pre"), [("llama", "smollm"), ("qwen2", "qwen2")])
def test_digits_are_split_one_by_one_although_a_merge_would_join_them(family, pre, convert):
    tokenizer = AutoTokenizer.from_pretrained(convert(tiny_model(family), family, pre))
    assert tokenizer.tokenize("ab 2020") == ["ab", "Ġ", "2", "0", "2", "0"]


def test_control_tokens_are_special_user_defined_ones_are_not_and_unused_ones_are_text(convert):
    tokenizer = AutoTokenizer.from_pretrained(convert(tiny_model("llama")))
    ids = tokenizer("<|start|>a<tool><|end|>").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|start|>", "a", "<tool>", "<|end|>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>"
    assert len(tokenizer) == len(TOKENS) - 1
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|start|>", "<|end|>")


def test_the_chat_template_is_kept(convert):
    tokenizer = AutoTokenizer.from_pretrained(convert(tiny_model("llama")))
    said = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert said == "<|start|>ab<|end|>"


def test_without_the_gguf_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        ValueError, match=r"'gguf' package.*pip install \"voicetextblender\[parts\]"
    ):
        convert_gguf(tmp_path / "model.gguf", tmp_path)
