"""The processor: conversations and recordings in, samples for the model out.

Shapes: S audio samples, F feature frames, M mel bins.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    SequenceFeatureExtractor,
    WhisperFeatureExtractor,
)

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.batch import IGNORE, Sample
from voicetextblender.chat import Conversation, user
from voicetextblender.config import ModelConfig
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.features import log_mel
from voicetextblender.model.parts import resolve
from voicetextblender.model.splice import spread
from voicetextblender.prompt import Prompter

SUBSAMPLING = {"whisper": 2, "parakeet_encoder": 8, "parakeet_ctc": 8}
"""Feature frames per encoder frame, by the encoder's model type."""

SHORTEST = 400  # samples: one analysis window; a shorter clip is completed with silence

UNUSED_TOKENS = (
    "<unused0>",  # Gemma; the paper's choice
    "<|reserved_special_token_0|>",  # Llama 3
    "<|box_start|>",  # Qwen 2.5
    "[control_8]",  # Mistral
    "<repo_name>",  # SmolLM2
)


class SpeechLMProcessor(ProcessorMixin):
    """A tokenizer with its chat template, and a feature extractor."""

    def __init__(
        self,
        feature_extractor: SequenceFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        audio_token: str = "",
        features_per_embedding: int = 8,
        chat_template: str | None = None,
    ) -> None:
        """Join the two; `audio_token` holds the place of each audio embedding."""
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.audio_token = audio_token
        self.features_per_embedding = features_per_embedding

    @classmethod
    def from_parts(cls, settings: ModelConfig) -> "SpeechLMProcessor":
        """Build the processor for an encoder and an LLM that are named in `settings`.

        Raises ValueError for a part that is not known or not supported.
        """
        encoder = resolve(settings.encoder)
        kind = AutoConfig.from_pretrained(encoder).model_type
        if kind not in SUBSAMPLING:
            raise ValueError(
                f"model.encoder '{settings.encoder}' is of kind '{kind}', which is not known as a "
                f"speech encoder; use one of {', '.join(SUBSAMPLING)}"
            )
        tokenizer = AutoTokenizer.from_pretrained(resolve(settings.llm))
        return cls(
            AutoFeatureExtractor.from_pretrained(encoder),
            tokenizer,
            choose_audio_token(tokenizer, settings.audio_token),
            SUBSAMPLING[kind] * settings.adapter.stack,
        )

    @cached_property
    def prompter(self) -> Prompter:
        """The chat template at work."""
        return Prompter(self.tokenizer)

    @property
    def audio_token_id(self) -> int:
        """Id of the token that holds an audio embedding's place; also the CTC blank."""
        return self.tokenizer.convert_tokens_to_ids(self.audio_token)

    @property
    def num_mel_bins(self) -> int:
        """Width of a feature frame."""
        return self.feature_extractor.feature_size

    def features(self, samples: np.ndarray) -> Tensor:
        """Map (S,) float32 samples at 16 kHz to (F, M) float32 features, at their true length."""
        samples = np.pad(samples, (0, max(0, SHORTEST - len(samples))))
        if isinstance(self.feature_extractor, WhisperFeatureExtractor):
            return log_mel(torch.from_numpy(samples), self.feature_extractor)
        extracted = self.feature_extractor(
            samples,
            sampling_rate=SAMPLE_RATE,
            padding="longest",
            truncation=False,
            return_tensors="pt",
        )
        # Parakeet's last frame is padding.
        return extracted["input_features"][0][extracted["attention_mask"][0].bool()]

    def encode(
        self,
        conversation: Conversation,
        clips: Sequence[np.ndarray],
        source: str = "",
        purpose: Literal["train", "answer"] = "train",
    ) -> Sample:
        """Turn a conversation and its clips' samples into ids, labels and features.

        For `answer` the conversation ends with a user turn and the template's opening of the
        assistant's turn is added. Raises ValueError that names the conversation.
        """
        if len(clips) != len(conversation.clips):
            raise ValueError(
                f"conversation '{conversation.id}' has {len(conversation.clips)} clips, and "
                f"samples of {len(clips)} are given; give those of each, in order"
            )
        encode = self.prompter.encode if purpose == "train" else self.prompter.encode_for_answer
        prompt = encode(conversation)
        features = [self.features(clip) for clip in clips]
        # One embedding for each `features_per_embedding` frames, the last group completed.
        lens = [-(-len(clip) // self.features_per_embedding) for clip in features]
        labels = spread(prompt.labels, prompt.slots, lens, IGNORE)
        return Sample(
            id=conversation.id,
            source=source,
            task=conversation.task,
            ids=spread(prompt.ids, prompt.slots, lens, self.audio_token_id),
            labels=[*labels[1:], IGNORE],
            features=features,
            ctc_targets=[self._spoken_ids(clip.text) for clip in conversation.clips],
        )

    def _spoken_ids(self, text: str | None) -> list[int] | None:
        if text is None:
            return None
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def choose_audio_token(tokenizer: PreTrainedTokenizerBase, wanted: str | None) -> str:
    """Return the token that holds an audio embedding's place: one that text never uses.

    Raises ValueError if `wanted` is no such token, or if none is known.
    """
    vocabulary = tokenizer.get_vocab()
    if wanted is not None:
        typed = Prompter(tokenizer).encode_for_answer(Conversation("typed", (user(wanted),)))
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        if wanted not in added or vocabulary[wanted] in typed.ids:
            raise ValueError(
                f"model.audio_token '{wanted}' is no token of the LLM that its text never uses; "
                f"name a reserved special token"
            )
        return wanted
    for token in UNUSED_TOKENS:
        if token in vocabulary:
            return token
    raise ValueError(
        "no unused token of the LLM is known; set model.audio_token to a special token "
        "that its text never uses"
    )


AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor)
