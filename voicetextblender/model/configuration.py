"""The configuration of a speech language model, as transformers keeps it in `config.json`."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from voicetextblender.config import ModelConfig


class SpeechLMConfig(PreTrainedConfig):
    """What a speech language model is made of, and what of it was trained."""

    model_type = "voicetextblender"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig, "audio_config": AutoConfig}

    def __init__(
        self,
        settings: dict[str, object] | None = None,
        text_config: dict[str, object] | PreTrainedConfig | None = None,
        audio_config: dict[str, object] | PreTrainedConfig | None = None,
        audio_token_id: int = 0,
        is_whole: bool = False,
        ctc_decoding: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Build from a `ModelConfig` as a dict, and the configurations of its LLM and encoder.

        `is_whole`: the folder holds all weights (export.py), not only those that were trained.
        `ctc_decoding`: weight of CTC where transcripts are decoded; 0 if it was not trained with.
        """
        self.settings = settings or {}
        self.text_config = _config(text_config, "llama")
        self.audio_config = _config(audio_config, "whisper")
        self.audio_token_id = audio_token_id
        self.is_whole = is_whole
        self.ctc_decoding = ctc_decoding
        super().__init__(**kwargs)

    @property
    def model(self) -> ModelConfig:
        """The settings that the model was built from."""
        return ModelConfig.model_validate(self.settings)


def _config(config: dict[str, object] | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    fields: dict[str, Any] = dict(config or {})
    return CONFIG_MAPPING[fields.pop("model_type", default)](**fields)


AutoConfig.register(SpeechLMConfig.model_type, SpeechLMConfig)
