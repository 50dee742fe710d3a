"""Recipes: every setting of a run, declared once, with its default and one line about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from voicetextblender.settings import Fraction, Settings, override, read_yaml, validate


class AdapterConfig(Settings):
    """How encoder frames become language-model embeddings."""

    kind: Literal["conformer", "mlp"] = "conformer"
    """conformer is the paper's; mlp stacks and projects, a form that llama.cpp can run."""

    stack: PositiveInt = 4
    """Encoder frames joined into one embedding: 4 turns Whisper's 20 ms steps into 80 ms."""

    width: PositiveInt = 512
    """Channels inside the adapter."""

    layers: PositiveInt = 2
    """Conformer layers."""

    heads: PositiveInt = 8
    """Attention heads of a Conformer layer; must divide width."""

    kernel: PositiveInt = 9
    """Embeddings that the depthwise convolution sees at once."""

    dropout: Fraction = 0.0
    """Dropout inside the Conformer layers, in training. The paper's 0.1 wants its 100k steps."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"heads is {self.heads}, which does not divide width {self.width}; choose a divisor"
            )
        return self


class LoraConfig(Settings):
    """Low-rank updates on every linear layer, in PEFT's terms."""

    rank: PositiveInt = 32
    """Rank of the update."""

    alpha: PositiveInt = 32
    """The update is scaled by alpha / rank."""

    dropout: Fraction = 0.0
    """Dropout before the update, in training."""


class TrainedParts(Settings):
    """What of each part is trained; the adapter always is, fully."""

    encoder: Literal["frozen", "lora", "full"] = "frozen"
    """full is the paper's choice, and wants more data than frozen."""

    llm: Literal["frozen", "lora"] = "lora"
    """frozen trains a voice for a model that is not allowed to change."""


class ModelConfig(Settings):
    """The parts of a speech language model."""

    llm: str = "smollm2-135m"
    """Hub id, folder, or alias of a packaged part."""

    encoder: str = "whisper-base"
    """Hub id, folder, or alias of a packaged part: a Whisper or Parakeet model."""

    adapter: AdapterConfig = AdapterConfig()
    """How encoder frames become language-model embeddings."""

    lora: LoraConfig = LoraConfig()
    """Low-rank updates, where `train` asks for them."""

    train: TrainedParts = TrainedParts()
    """What of each part is trained."""

    audio_token: str | None = None
    """Token that holds an audio embedding's place; null takes one that the LLM never uses."""

    captions: bool = False
    """Whether a clip's own transcript is read with it, for models that write better than they
    understand; transcripts and training are as without."""


class SourceConfig(Settings):
    """One source of the blend: conversations and how often they are drawn."""

    name: str
    """Name in logs and reports."""

    path: str
    """JSONL file of conversations, or a glob of several; relative to the recipe's folder."""

    weight: PositiveFloat = 1.0
    """Share of the conversations that are drawn, relative to the other sources."""

    epochs: PositiveFloat | None = None
    """How often it is gone through at most; its share then goes to the others. null is for ever."""

    by: tuple[Literal["file", "lang", "task"], ...] = ()
    """What divides it into kinds, level by level, each with a share of size ** temperature."""

    temperature: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """1 keeps the shares that kinds have in the data, 0 makes kinds equal."""

    loss_weight: PositiveFloat = 1.0
    """Weight in the loss of each of its answers' tokens."""

    twins: bool = True
    """Whether `train.kl_twin_weight` counts here: for answers that the LLM would give, and not for
    transcripts, translations or formats that it does not know."""


class LearningRates(Settings):
    """Peak learning rate of each trained part."""

    adapter: PositiveFloat = 1e-3
    """The adapter starts from nothing, so it learns fastest."""

    lora: PositiveFloat = 4e-4
    """Low-rank updates of the language model."""

    encoder: PositiveFloat = 1e-5
    """The encoder's own weights, when they are trained fully."""

    encoder_lora: PositiveFloat = 2e-4
    """Low-rank updates of the encoder."""


Steps = tuple[NonNegativeInt, PositiveInt | None]


class LearnConfig(Settings):
    """When each part learns: from which step on, and up to which; null is to the end.

    Outside of these steps a part is frozen; when it begins, its learning rate rises over `warmup`.
    """

    adapter: Steps = (0, None)
    """The adapter."""

    lora: Steps = (0, None)
    """Low-rank updates of the language model."""

    encoder: Steps = (0, None)
    """The encoder's own weights."""

    encoder_lora: Steps = (0, None)
    """Low-rank updates of the encoder."""


class RetentionConfig(Settings):
    """Watching what the model keeps of its LLM while it trains, on a small fixed text."""

    text: str
    """File of plain text; relative to the recipe's folder."""

    every: PositiveInt = 200
    """Steps between looks."""

    tokens: PositiveInt = 2048
    """How much of the text is read: its first tokens."""

    limit: PositiveFloat = 0.05
    """How far perplexity may rise above the LLM's, as a share of it."""

    action: Literal["warn", "stop"] = "warn"
    """What to do beyond the limit: say so in the log, or save a checkpoint and stop the run."""


class SpecAugmentConfig(Settings):
    """Masks over the features of each clip in training (Park et al. 2019); the paper's counts."""

    freq_masks: NonNegativeInt = 2
    """Number of masks over mel bins."""

    freq_width: NonNegativeInt = 27
    """Widest frequency mask, in mel bins."""

    time_masks: NonNegativeInt = 10
    """Number of masks over time."""

    time_width: Fraction = 0.05
    """Widest time mask, as a share of the clip."""


class TrainConfig(Settings):
    """The optimisation."""

    steps: PositiveInt = 1000
    """Optimiser steps."""

    tokens_per_batch: PositiveInt = 2048
    """Positions of a packed row, audio and text together."""

    rows_per_step: PositiveInt = 1
    """Rows of one optimiser step, shared by all ranks; what a rank has of them is accumulated."""

    over_long: Literal["refuse", "skip"] = "refuse"
    """What to do with a conversation that fits no row; what is skipped is counted in the log."""

    max_broken: NonNegativeInt = 0
    """Conversations that may be broken, and are then left out and named, before the run stops."""

    workers: NonNegativeInt = 0
    """Processes of each rank that make samples; 0 makes them where the model is, best on a CPU."""

    lr: LearningRates = LearningRates()
    """Peak learning rate of each part."""

    learn: LearnConfig = LearnConfig()
    """When each part learns, and when it is frozen."""

    ema: Fraction = 0.0
    """Decay of a running average of the weights, which is what the run's model is; 0 for none."""

    warmup: NonNegativeInt = 100
    """Steps over which the learning rates rise from zero; they then fall along a cosine."""

    final_lr: Fraction = 0.01
    """Learning rates at the last step, as a share of their peak."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    """AdamW's decay rates; the paper's."""

    weight_decay: NonNegativeFloat = 1e-3
    """AdamW's decoupled weight decay, on matrices only."""

    clip_norm: PositiveFloat = 1.0
    """The gradient of each part is scaled down to this norm."""

    adapter_first: NonNegativeInt = 0
    """First steps that skip the LLM: CTC alone aligns the adapter, for a sixth of the time."""

    ctc_weight: NonNegativeFloat = 1.0
    """Weight of the auxiliary CTC loss through the LLM's embedding table; 0 switches it off."""

    kl_weight: NonNegativeFloat = 0.0
    """Weight of staying near the LLM as it was, on all positions of conversations without audio."""

    kl_twin_weight: NonNegativeFloat = 0.0
    """Weight of answering what is spoken as the LLM answers its typed twin; needs clips' text."""

    ctc_tokens: NonNegativeInt = 0
    """Audio positions of more clips that each row hears by CTC alone, at a tenth of its price."""

    ctc_negatives: PositiveInt = 2048
    """Random tokens of the vocabulary that the CTC loss contrasts with the words that are heard."""

    flat_start: NonNegativeInt = 100
    """Steps in which CTC is helped to align by taking words as evenly spaced, less and less."""

    spec_augment: SpecAugmentConfig | None = SpecAugmentConfig()
    """Feature masks; null for none."""

    seed: NonNegativeInt = 0
    """Decides the order of the data, the masks, the dropout and the first weights."""

    parallel: Literal["ddp", "fsdp"] = "ddp"
    """On several ranks: ddp keeps the model whole on each; fsdp shards its layers over them."""

    recompute: bool = False
    """Make the LLM's activations anew in the backward pass: less memory, a third more time."""

    compile: bool = False
    """Compile the layers of encoder and LLM, on a GPU: a minute at the start, then faster steps."""

    frame_cache_gb: NonNegativeFloat = 0.0
    """Disk for the frames of a frozen encoder, so that each clip is encoded once; 0 for none."""

    retention: RetentionConfig | None = None
    """Alarm for what the model forgets; null for none."""

    wandb: str | None = None
    """Project of Weights & Biases that the log also goes to; null for none."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 computes in bfloat16 and keeps what is trained in float32."""

    save_every: PositiveInt = 200
    """Steps between checkpoints."""

    keep: PositiveInt = 2
    """Newest checkpoints that are kept."""

    log_every: PositiveInt = 10
    """Steps between lines of the log."""

    @model_validator(mode="after")
    def _warmup_ends_before_the_run(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup is {self.warmup}, but the run has {self.steps} steps; choose a smaller one"
            )
        return self

    @model_validator(mode="after")
    def _adapter_first_has_a_loss_and_an_end(self) -> Self:
        if self.adapter_first and not self.ctc_weight:
            raise ValueError(
                "adapter_first trains by CTC alone, but ctc_weight is 0; set one or the other"
            )
        if self.adapter_first >= self.steps:
            raise ValueError(
                f"adapter_first is {self.adapter_first}, but the run has {self.steps} steps; "
                f"choose a smaller one"
            )
        return self

    @model_validator(mode="after")
    def _frames_that_change_are_not_cached(self) -> Self:
        if self.frame_cache_gb and self.spec_augment is not None:
            raise ValueError(
                "frame_cache_gb needs clips that are the same each time, but spec_augment masks "
                "them anew; set spec_augment to null, or frame_cache_gb to 0"
            )
        return self


class Recipe(Settings):
    """Everything about one run."""

    run: str
    """Folder of the run: checkpoints, logs, report. Relative to the current folder."""

    init: str | None = None
    """Folder of a trained model of the same parts to go on from, such as models/nano, relative to
    the current folder; null for none."""

    model: ModelConfig = ModelConfig()
    """The parts and what of them is trained."""

    blend: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """The sources of conversations."""

    train: TrainConfig = TrainConfig()
    """The optimisation."""

    @model_validator(mode="after")
    def _only_a_frozen_encoder_is_cached(self) -> Self:
        if self.train.frame_cache_gb and self.model.train.encoder != "frozen":
            raise ValueError(
                f"train.frame_cache_gb needs a frozen encoder, but model.train.encoder is "
                f"'{self.model.train.encoder}'; set one or the other"
            )
        return self

    @model_validator(mode="after")
    def _source_names_differ(self) -> Self:
        names = [source.name for source in self.blend]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"blend names '{twice[0]}' twice; each source needs its own name")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides such as `train.steps=10`.

    Paths of the blend become absolute. Raises ValueError that names the file and the key.
    """
    path = Path(path)
    tree = read_yaml(path, "recipe", "'run' and 'blend'")
    for word in overrides:
        override(tree, word)
    recipe = validate(Recipe, tree, str(path))
    folder = path.parent.absolute()
    blend = tuple(s.model_copy(update={"path": str(folder / s.path)}) for s in recipe.blend)
    train = recipe.train
    if (watch := train.retention) is not None:
        watch = watch.model_copy(update={"text": str(folder / watch.text)})
        train = train.model_copy(update={"retention": watch})
    return recipe.model_copy(update={"blend": blend, "train": train})


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
