"""vLLM: an exported model in vLLM, as a plugin that it finds by itself (`vllm.general_plugins`).

Encoder and adapter are ours, as they are; the language model, with the low-rank updates merged into
it, is vLLM's own. This module needs vLLM and is imported by it; `register` alone does not.

Shapes: F feature frames of a clip, M mel bins, A audio embeddings of a clip, E width of the LLM.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchFeature
from vllm.config import ModelConfig, SpeechToTextConfig, VllmConfig
from vllm.config.speech_to_text import SpeechToTextParams
from vllm.inputs import TokensPrompt
from vllm.model_executor.models.interfaces import (
    SupportsMultiModal,
    SupportsPP,
    SupportsTranscription,
)
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import AudioProcessorItems, MultiModalDataItems, MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
)
from vllm.sequence import IntermediateTensors
from vllm.transformers_utils.processor import cached_processor_from_config

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Audio, Conversation, user
from voicetextblender.model.adapter import build_adapter
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.encoder import encoder_from_config
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.prompt import AUDIO_SLOT
from voicetextblender.text import LANGUAGES, transcribe_instruction, translate_instruction

if TYPE_CHECKING:
    from vllm.config.multimodal import MultiModalDummyOptions

LONGEST_S = 30
"""Seconds of the longest clip for which vLLM sets memory aside; longer ones are served too."""


class Info(BaseProcessingInfo):
    """What vLLM asks of a model's processor."""

    @property
    def processor(self) -> SpeechLMProcessor:
        """Ours, as the exported folder holds it."""
        return self.get_hf_processor()

    def get_hf_processor(self, **kwargs: object) -> SpeechLMProcessor:
        """Load the processor once."""
        return self.ctx.get_hf_processor(SpeechLMProcessor, **kwargs)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of clips."""
        return {"audio": None}

    def get_data_parser(self) -> MultiModalDataParser:
        """Recordings come at 16 kHz, mono."""
        return MultiModalDataParser(target_sr=SAMPLE_RATE, target_channels=1)

    def num_embeddings(self, features: Tensor) -> int:
        """How many positions a clip of (F, M) features takes in the prompt."""
        return -(-len(features) // self.processor.features_per_embedding)


class DummyInputs(BaseDummyInputsBuilder[Info]):
    """The largest input, with which vLLM measures memory when it starts."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A slot for each clip."""
        return self.info.processor.audio_token * mm_counts.get("audio", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: "MultiModalDummyOptions"
    ) -> dict[str, Any]:
        """Silent clips."""
        return {
            "audio": self._get_dummy_audios(
                length=LONGEST_S * SAMPLE_RATE, num_audios=mm_counts.get("audio", 0)
            )
        }


class Processor(BaseMultiModalProcessor[Info]):
    """Recordings to features, and each slot to as many positions as its clip has embeddings."""

    def __init__(self, info: Info, dummy_inputs: DummyInputs) -> None:
        """Tell the model's class its audio token: vLLM asks the class, and serves one model."""
        super().__init__(info, dummy_inputs)
        VllmSpeechLM.audio_token = info.processor.audio_token

    def _apply_hf_processor_main(
        self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        if "audio" not in mm_items:
            return BatchFeature()
        clips = mm_items.get_items("audio", AudioProcessorItems).get_all()
        features = self.info.processor.features
        return BatchFeature({"features": [features(np.asarray(clip, "float32")) for clip in clips]})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"features": MultiModalFieldConfig.batched("audio")}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptReplacement]:
        slot = self.info.processor.audio_token_id

        def positions(clip: int) -> list[int]:
            features = out_mm_kwargs["audio"][clip]["features"].data
            assert isinstance(features, Tensor)
            return [slot] * self.info.num_embeddings(features)

        return [PromptReplacement(modality="audio", target=[slot], replacement=positions)]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class VllmSpeechLM(nn.Module, SupportsMultiModal, SupportsPP, SupportsTranscription):
    """`SpeechLM` with vLLM's implementation of its language model."""

    supported_languages: ClassVar[Mapping[str, str]] = LANGUAGES
    audio_token: ClassVar[str] = ""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build with empty weights. Raises ValueError for a model that was not exported."""
        super().__init__()
        config = vllm_config.model_config.hf_config
        assert isinstance(config, SpeechLMConfig)
        if not config.is_whole:
            raise ValueError(
                f"{vllm_config.model_config.model}: holds only what was trained; "
                f"serve what 'vtb export DIR --to vllm --out NEW' makes of it"
            )
        with self._mark_tower_model(vllm_config, "audio"):
            # Its own config may name another dtype than vLLM was told.
            self.encoder = encoder_from_config(config.audio_config).to(torch.get_default_dtype())
            self.adapter = build_adapter(
                **config.model.adapter.model_dump(),
                encoder_width=self.encoder.width,
                llm_width=config.text_config.hidden_size,
            )
        with self._mark_language_model(vllm_config):
            self.llm = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "llm"),
            )
        self.make_empty_intermediate_tensors = self.llm.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: object) -> list[Tensor]:
        """Map the clips' (F, M) features to (A, E) embeddings each, all in one packed pass."""
        clips: Any = kwargs.get("features")
        if clips is None:
            return []
        lens = tuple(map(len, clips))
        weight = next(self.encoder.parameters())
        packed = torch.cat([clip.to(weight.device, weight.dtype) for clip in clips])
        embeddings, lens = self.adapter(*self.encoder(packed, lens))
        return list(embeddings.split(lens))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor | IntermediateTensors:
        """Map the tokens of a step to hidden states."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.llm.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Map hidden states to logits."""
        return self.llm.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Fill in an exported model's weights, whose names are ours."""
        return AutoWeightsLoader(self).load_weights(weights)

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """Stand for a clip in a chat, until the prompt's slots are filled."""
        return cls.audio_token if modality == "audio" else None

    @classmethod
    def get_speech_to_text_config(
        cls, model_config: ModelConfig, task_type: str
    ) -> SpeechToTextConfig:
        """Long recordings are cut at quiet places, into pieces as our own transcription makes."""
        return SpeechToTextConfig(sample_rate=SAMPLE_RATE, max_audio_clip_s=15)

    @classmethod
    def get_generation_prompt(cls, stt_params: SpeechToTextParams) -> TokensPrompt:
        """Ask for a transcript or a translation as in training."""
        processor = cached_processor_from_config(stt_params.model_config, SpeechLMProcessor)
        source, target = stt_params.language or "en", stt_params.to_language or "en"
        instruction = (
            translate_instruction(source, target)
            if stt_params.task_type == "translate"
            else transcribe_instruction(source)
        )
        asked = Conversation("recording", (user(instruction, Audio("recording")),))
        ids = processor.prompter.encode_for_answer(asked).ids
        slot = processor.audio_token_id
        return TokensPrompt(
            prompt_token_ids=[slot if token == AUDIO_SLOT else token for token in ids],
            multi_modal_data={"audio": stt_params.audio},
        )
