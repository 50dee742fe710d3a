"""Recipes: every setting of a run, declared once, with its default and one line about it.

A recipe is a YAML file; `key=value` words of the command line override it. Nothing here looks at
the machine, and a bad value is refused, never repaired.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

S = TypeVar("S", bound="Settings")
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class EngineConfig(Settings):
    """How a model answers many at once."""

    precision: Literal["model", "int8"] = "model"
    """Weights as the model has them, or in 8 bits with a scale for each output."""

    max_running: PositiveInt = 16
    """Answers that grow together."""

    max_waiting: PositiveInt = 64
    """Requests that may wait for their turn; more are refused."""

    max_read_tokens: PositiveInt = 1024
    """Prompt tokens read between two steps; more would hold up the answers that grow."""

    prefix_tokens: NonNegativeInt = 8192
    """Tokens of ended answers whose keys and values are kept for the conversation's next turn."""

    context: PositiveInt = 8192
    """Longest conversation with its answer, in tokens; the LLM's own limit if that is less."""

    deadline_s: PositiveFloat = 300.0
    """Seconds after which a request is given up."""


class ServerConfig(Settings):
    """How a model is served over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines in."""

    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    """Port to listen at; 0 takes a free one."""

    api_keys: tuple[str, ...] = ()
    """Keys that clients must send; none lets everybody in who reaches the address."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask, such as https://example.org."""

    tls_cert: Path | None = None
    """PEM file of the certificate; with tls_key the server speaks https."""

    tls_key: Path | None = None
    """PEM file of the certificate's key."""

    max_request_mb: PositiveInt = 32
    """Largest request in MiB."""

    max_clip_s: PositiveFloat = 120.0
    """Seconds of sound that the clips of one conversation may hold together."""

    max_recording_s: PositiveFloat = 4 * 3600.0
    """Longest recording to transcribe, in seconds."""

    max_transcriptions: PositiveInt = 8
    """Recordings that are transcribed at a time."""

    requests_per_minute: NonNegativeInt = 0
    """Requests of one key, or of one address where there are no keys; 0 for any number."""

    allow_http_audio: bool = False
    """Whether audio_url may name http(s) addresses; they must be public."""

    grace_s: PositiveFloat = 30.0
    """Seconds that running requests have to end when the server is told to stop."""

    engine: EngineConfig = EngineConfig()
    """How the model answers many at once."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; give both or none")
        if any(len(key) < 8 for key in self.api_keys):
            raise ValueError(
                "an api key is shorter than 8 characters; make one that is not guessed"
            )
        return self


class Recipe(Settings):
    """Everything about one run."""

    run: str
    """Folder of the run: checkpoints, logs, report. Relative to the current folder."""

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
    for override in overrides:
        _set(tree, override)
    recipe = validate(Recipe, tree, str(path))
    folder = path.parent.absolute()
    blend = tuple(s.model_copy(update={"path": str(folder / s.path)}) for s in recipe.blend)
    train = recipe.train
    if (watch := train.retention) is not None:
        watch = watch.model_copy(update={"text": str(folder / watch.text)})
        train = train.model_copy(update={"retention": watch})
    return recipe.model_copy(update={"blend": blend, "train": train})


def read_yaml(path: Path, what: str, keys: str) -> dict:
    """Read a YAML file that holds a mapping; `what` is a recipe or a suite. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: no such {what}; name a YAML file such as {what}s/demo.yaml")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a {what} must be a mapping with {keys}")
    return tree


def validate(kind: type[S], tree: object, where: str) -> S:
    """Return settings of `kind` from parsed YAML or JSON.

    Raises ValueError with one sentence for the first thing that is wrong.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}: {_explain(kind, first)}") from None


def parse_settings(kind: type[S], overrides: Sequence[str]) -> S:
    """Return settings made of `key=value` words alone. Raises ValueError."""
    tree: dict = {}
    for override in overrides:
        _set(tree, override)
    return validate(kind, tree, "settings")


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _set(tree: dict, override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ValueError(f"'{override}' is no override; write key=value, such as train.steps=10")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ValueError(f"'{override}': '{parent}' is a value, not a group of settings")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"'{override}': not YAML: {' '.join(str(error).split())}") from None


def _explain(kind: type[Settings], error: ErrorDetails) -> str:
    loc = error["loc"]
    key = ".".join(map(str, loc)) or "recipe"
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f", not {error['input']!r:.60}"
        message = error["msg"].removeprefix("Value error, ")
        return f"'{key}': {message}{given if 'Value error' not in error['msg'] else ''}"
    known = _fields_at(kind, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{key}'; {hint}"


def _fields_at(kind: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the known keys of the settings group that `loc` leads to."""
    schema = kind.model_json_schema()
    node = schema
    for step in loc:
        node = _resolve(schema, node)
        node = node.get("items", node) if isinstance(step, int) else node["properties"][step]
    return sorted(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict, node: dict) -> dict:
    while "$ref" in node or "anyOf" in node:
        if "anyOf" in node:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
