"""What the loop is fed with: the recipe's blend as samples of its model, masks and all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from voicetextblender.batch import IGNORE, Batch, Sample, Twin, with_clips
from voicetextblender.chat import Conversation
from voicetextblender.config import Recipe, SourceConfig, TrainConfig
from voicetextblender.data.loader import Loader
from voicetextblender.data.records import Records, load_clips, spread
from voicetextblender.data.sources import Source, divide
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.seeding import seeded
from voicetextblender.train.augment import spec_augment
from voicetextblender.train.dist import Ranks
from voicetextblender.train.state import Position


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes a training sample of a conversation; a value, so that it can be sent to workers."""

    processor: SpeechLMProcessor
    config: TrainConfig
    without_twins: frozenset[str] = frozenset()
    """Sources whose spoken conversations are not compared with typed ones."""

    def __call__(self, conversation: Conversation, source: str, draw: int) -> Sample:
        """Return the sample of draw number `draw`, which decides its masks."""
        sample = self.processor.encode(conversation, load_clips(conversation), source)
        if not (conversation.clips and source in self.without_twins):
            sample = replace(sample, twin=self._twin(conversation, sample))
        if self.config.spec_augment is not None:
            random = seeded(self.config.seed, "spec_augment", draw)
            sample.features[:] = [
                spec_augment(clip, self.config.spec_augment, random) for clip in sample.features
            ]
        return sample

    def _twin(self, conversation: Conversation, sample: Sample) -> Twin | None:
        """Return what the frozen LLM reads instead, if the recipe weighs how it differs."""
        clips = conversation.clips
        if not clips and self.config.kl_weight:
            everywhere = list(range(len(sample)))
            return Twin(sample.ids, everywhere, everywhere, is_spoken=False)
        if not clips or not self.config.kl_twin_weight or any(clip.text is None for clip in clips):
            return None
        typed = self.processor.encode(conversation.typed(), ())
        at, own = (
            [n for n, label in enumerate(labels) if label != IGNORE]
            for labels in (typed.labels, sample.labels)
        )
        assert len(at) == len(own), f"conversation '{sample.id}': its typed twin answers otherwise"
        return Twin(typed.ids, at, own, is_spoken=True)


@dataclass(frozen=True, slots=True)
class Hearer:
    """Makes a sample of nothing but a conversation's clips, for CTC alone."""

    encoder: Encoder

    def __call__(self, conversation: Conversation, source: str, draw: int) -> Sample | None:
        """Return the clips whose words are known, or None if there are none."""
        if all(clip.text is None for clip in conversation.clips):
            return None
        sample = self.encoder(conversation, source, draw)
        known = [n for n, target in enumerate(sample.ctc_targets) if target is not None]
        processor = self.encoder.processor
        features = [sample.features[n] for n in known]
        length = sum(-(-len(clip) // processor.features_per_embedding) for clip in features)
        return replace(
            sample,
            ids=[processor.audio_token_id] * length,
            labels=[IGNORE] * length,
            features=features,
            ctc_targets=[sample.ctc_targets[n] for n in known],
            twin=None,
        )


class Feed:
    """An endless stream of a rank's rows, step by step, with the position after each step."""

    def __init__(
        self, recipe: Recipe, processor: SpeechLMProcessor, position: Position, ranks: Ranks
    ) -> None:
        self.position = position
        self.loaders = [build_loader(recipe, processor)]
        if recipe.train.ctc_tokens:
            self.loaders.append(build_hearing_loader(recipe, processor))
        self.share = {
            "rank": ranks.rank,
            "num_ranks": ranks.num,
            "ahead": ranks.device.type != "cpu",
        }

    def __iter__(self) -> Iterator[tuple[list[Batch], Position]]:
        """Yield the rows of each step, with the clips behind them that CTC alone hears."""
        places = (self.position.places, self.position.heard)
        streams = [
            loader.steps(place, **self.share)
            for loader, place in zip(self.loaders, places, strict=False)
        ]
        for step, made in enumerate(zip(*streams, strict=True), self.position.step + 1):
            joint, *heard = made
            if not heard:
                yield list(joint.batches), Position(step, dict(joint.places))
                continue
            pairs = zip(joint.batches, heard[0].batches, strict=True)
            rows = [with_clips(*pair) for pair in pairs]
            yield rows, Position(step, dict(joint.places), dict(heard[0].places))

    def left_out(self) -> dict[str, str]:
        """Return the conversations that could not be used so far, and why."""
        return self.loaders[0].broken | self.loaders[0].too_long


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


def build_hearing_loader(recipe: Recipe, processor: SpeechLMProcessor) -> Loader:
    """Return a stream of more of the blend's clips. Raises ValueError if it has none with text."""
    config = recipe.train
    sources = [
        replace(source, epochs=None) for source in build_sources(recipe.blend) if _speaks(source)
    ]
    if not sources:
        raise ValueError(
            f"train.ctc_tokens is {config.ctc_tokens}, but no source of the blend has clips with "
            f"'text', what is said in them; add it, or set train.ctc_tokens to 0"
        )
    return Loader(
        sources,
        Hearer(Encoder(processor, config, frozenset(source.name for source in recipe.blend))),
        tokens_per_batch=config.ctc_tokens,
        num_mel_bins=processor.num_mel_bins,
        seed=-1 - config.seed,  # other draws than the joint stream's
        rows_per_step=config.rows_per_step,
        workers=config.workers,
        max_broken=config.max_broken,
        over_long="skip",
    )


def _speaks(source: Source) -> bool:
    """Return whether some of a few conversations have clips whose words are known."""
    return any(clip.text for n in spread(len(source), 16) for clip in source[n].clips)


def build_loader(recipe: Recipe, processor: SpeechLMProcessor) -> Loader:
    """Return the recipe's stream of batches."""
    config = recipe.train
    return Loader(
        build_sources(recipe.blend),
        Encoder(processor, config, frozenset(s.name for s in recipe.blend if not s.twins)),
        tokens_per_batch=config.tokens_per_batch,
        num_mel_bins=processor.num_mel_bins,
        seed=config.seed,
        rows_per_step=config.rows_per_step,
        workers=config.workers,
        max_broken=config.max_broken,
        over_long=config.over_long,
    )
