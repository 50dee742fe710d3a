"""Tiny random models, saved as folders: a recipe names them as it would name real parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings as hypothesis_settings
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import (
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    ParakeetEncoder,
    ParakeetEncoderConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.utils import logging

from voicetextblender.config import ModelConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor

torch.set_num_threads(1)
logging.disable_progress_bar()
hypothesis_settings.register_profile("busy machine", deadline=None)
hypothesis_settings.load_profile("busy machine")

TEMPLATES = Path(__file__).parent / "templates"
SENTENCES = [
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "system user assistant Transcribe the content to English, with punctuations.",
]
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
SHAPE: dict[str, Any] = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    initializer_range=0.2,  # wide enough for logits that differ
)
LLMS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": lambda **ids: LlamaConfig(**SHAPE, tie_word_embeddings=True, **ids),
    "qwen2": lambda **ids: Qwen2Config(**SHAPE, tie_word_embeddings=False, **ids),
    "gemma": lambda **ids: GemmaConfig(**SHAPE, head_dim=8, **ids),
    "gemma2": lambda **ids: Gemma2Config(
        **SHAPE,
        head_dim=8,
        sliding_window=16,
        query_pre_attn_scalar=8,
        tie_word_embeddings=False,  # a tied one repeats its last token, whatever it looks back on
        **ids,
    ),
}
TINY: dict[str, Any] = {
    "adapter": {"width": 16, "heads": 2, "layers": 1, "kernel": 3},
    "lora": {"rank": 2, "alpha": 4},
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with ChatML."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROLS])
    tokenizer.add_tokens([AddedToken("hello", normalized=False)])  # a word, no control token
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(TEMPLATES / "smollm2.jinja").read_text(),
    )


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny parts: llama, qwen2, gemma, gemma2, whisper, parakeet."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    for name, config in LLMS.items():
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        llm = AutoModelForCausalLM.from_config(
            config(vocab_size=len(tokenizer), bos_token_id=None, **ids)
        )
        llm.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    whisper = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder / "whisper")
    parakeet = ParakeetEncoderConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_mel_bins=8,
        subsampling_conv_channels=8,
        conv_kernel_size=3,
    )
    ParakeetEncoder(parakeet).save_pretrained(folder / "parakeet")
    return folder


@pytest.fixture(scope="session")
def tiny(parts: Path) -> Callable[..., ModelConfig]:
    """Settings of a tiny model: `tiny("gemma", train={"encoder": "full"})`."""

    def settings(llm: str = "llama", encoder: str = "whisper", **others: object) -> ModelConfig:
        named = {"llm": str(parts / llm), "encoder": str(parts / encoder)}
        return ModelConfig.model_validate(TINY | named | others)

    return settings


@pytest.fixture(scope="session")
def processor(tiny: Callable[..., ModelConfig]) -> SpeechLMProcessor:
    return SpeechLMProcessor.from_parts(tiny())


@pytest.fixture(scope="session")
def build(
    tiny: Callable[..., ModelConfig], processor: SpeechLMProcessor
) -> Callable[..., SpeechLM]:
    """A tiny model in float32 and in evaluation mode, whose trained weights are random."""

    def model(llm: str = "llama", *, dtype: torch.dtype = torch.float32, **others: Any) -> SpeechLM:
        torch.manual_seed(1)
        built = SpeechLM.from_parts(tiny(llm, **others), processor.audio_token_id, dtype).eval()
        with torch.no_grad():
            for parameters in built.trained_parts().values():
                for parameter in parameters:
                    parameter += 0.1 * torch.randn_like(parameter)
        return built

    return model


@pytest.fixture(scope="session")
def sound() -> Callable[..., np.ndarray]:
    """Samples at 16 kHz: `sound(0.5)` is half a second of a tone in noise."""

    def samples(seconds: float, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        time_s = np.arange(round(seconds * 16_000)) / 16_000
        tone = np.sin(2 * np.pi * (200 + 100 * seed) * time_s)
        return (0.3 * tone + 0.05 * random.standard_normal(len(time_s))).astype(np.float32)

    return samples
