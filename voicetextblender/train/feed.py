"""What the loop is fed with: the recipe's blend as samples of its model, masks and all."""

from collections.abc import Sequence
from dataclasses import dataclass

from voicetextblender.batch import Sample
from voicetextblender.chat import Conversation
from voicetextblender.config import Recipe, SourceConfig, TrainConfig
from voicetextblender.data.loader import Loader
from voicetextblender.data.records import Records, load_clips
from voicetextblender.data.sources import Source, divide
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.seeding import seeded
from voicetextblender.train.augment import spec_augment


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes a training sample of a conversation; a value, so that it can be sent to workers."""

    processor: SpeechLMProcessor
    config: TrainConfig

    def __call__(self, conversation: Conversation, source: str, draw: int) -> Sample:
        """Return the sample of draw number `draw`, which decides its masks."""
        sample = self.processor.encode(conversation, load_clips(conversation), source)
        if self.config.spec_augment is not None:
            random = seeded(self.config.seed, "spec_augment", draw)
            sample.features[:] = [
                spec_augment(clip, self.config.spec_augment, random) for clip in sample.features
            ]
        return sample


def build_sources(blend: Sequence[SourceConfig]) -> list[Source]:
    """Return the sources of a blend, each divided as its settings say."""
    return [
        part
        for config in blend
        for part in divide(
            Source(config.name, Records(config.path), config.weight, config.epochs),
            config.by,
            config.temperature,
        )
    ]


def build_loader(recipe: Recipe, processor: SpeechLMProcessor) -> Loader:
    """Return the recipe's stream of batches."""
    config = recipe.train
    return Loader(
        build_sources(recipe.blend),
        Encoder(processor, config),
        tokens_per_batch=config.tokens_per_batch,
        num_mel_bins=processor.num_mel_bins,
        seed=config.seed,
        rows_per_step=config.rows_per_step,
        workers=config.workers,
        max_broken=config.max_broken,
        over_long=config.over_long,
    )
