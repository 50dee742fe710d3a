"""The plan: what a run will be made of, before it is paid for.

How often each source is drawn follows from the blend exactly; how long its conversations are is
estimated from some of them, unless there are few. Time and memory come from a few real steps.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from voicetextblender.audio import probe_duration
from voicetextblender.batch import IGNORE
from voicetextblender.chat import Conversation
from voicetextblender.config import Recipe
from voicetextblender.data.blend import Blend
from voicetextblender.data.records import spread
from voicetextblender.data.sources import Source
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.feed import build_sources

if TYPE_CHECKING:
    from rich.console import Console

SAMPLED = 200
"""Conversations of each source that are looked at."""
MEASURED_STEPS = 4
"""Steps that are really done to know time and memory; the first does not count."""
FEATURES_PER_S = 100


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the conversations of a source are, on average."""

    audio_s: float
    positions: float
    supervised: float
    too_long: float
    """Share that fits no row."""
    unusable: float
    """Share that has no prompt or no sound."""


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What a source, or one kind of its conversations, will give in the whole run."""

    name: str
    kind: str
    size: int
    """Conversations that it has."""
    draws: int
    """Conversations that will be drawn from it."""
    share: float
    """Of all draws."""
    hours: float
    positions: int
    supervised: int
    """Tokens that will be scored."""
    too_long: float
    unusable: float

    @property
    def epochs(self) -> float:
        return self.draws / self.size


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step costs on this machine."""

    step_s: float
    first_s: float | None
    """What each of the first steps takes, which skip the LLM; None if there are none."""
    total_s: float
    """What the run takes."""
    memory_gb: float
    """Peak: of the GPU, or of the process."""
    device: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will be made of."""

    sources: tuple[SourcePlan, ...]
    steps: int
    cost: Cost | None
    """None if it was not measured."""


def make_plan(
    recipe: Recipe, measure: bool = True, progress: Callable[[float], None] = lambda share: None
) -> Plan:
    """Plan the recipe's run; `measure` does a few steps of it. Raises ValueError as a run does."""
    processor = SpeechLMProcessor.from_parts(recipe.model)
    sources = build_sources(recipe.blend)
    budget = recipe.train.tokens_per_batch
    found = []
    for n, source in enumerate(sources):
        progress(0.5 * n / len(sources))
        found.append(look_at(source, processor, budget))
    cost = measure_cost(recipe) if measure else None
    progress(1.0)
    return Plan(_sources(recipe, sources, found), recipe.train.steps, cost)


def look_at(source: Source, processor: SpeechLMProcessor, budget: int) -> Lengths:
    """Measure at most SAMPLED conversations, evenly spread over the source, without decoding."""
    places = spread(len(source), SAMPLED)
    measured: list[tuple[float, int, int]] = []
    too_long = 0
    for place in places:
        try:
            lengths = measure_lengths(source[place], processor)
        except (ValueError, OSError):
            continue  # counted as unusable
        too_long += lengths[1] > budget
        measured.append(lengths)
    usable = [lengths for lengths in measured if lengths[1] <= budget]
    means = [statistics.fmean(column) for column in zip(*usable, strict=True)] or [0.0] * 3
    unusable = 1 - len(measured) / len(places)
    return Lengths(*means, too_long=too_long / len(places), unusable=unusable)


def measure_lengths(
    conversation: Conversation, processor: SpeechLMProcessor
) -> tuple[float, int, int]:
    """Return seconds of audio, positions and supervised tokens. Raises ValueError or OSError."""
    prompt = processor.prompter.encode(conversation)
    seconds = [
        min(left, clip.duration or left)
        for clip in conversation.clips
        for left in (probe_duration(clip.audio) - clip.start,)
    ]
    features = [int(FEATURES_PER_S * s) for s in seconds]
    audio = sum(-(-n // processor.features_per_embedding) for n in features)
    supervised = sum(label != IGNORE for label in prompt.labels)
    return sum(seconds), len(prompt.ids) - len(prompt.slots) + audio, supervised


def measure_cost(recipe: Recipe) -> Cost:
    """Do a few steps of the recipe in a folder that is then removed."""
    from voicetextblender.train.loop import train

    lines: list[dict] = []
    first = MEASURED_STEPS if recipe.train.adapter_first else 0
    steps = first + MEASURED_STEPS
    with tempfile.TemporaryDirectory() as folder:
        few = {"steps": steps, "adapter_first": first, "warmup": 0, "log_every": 1}
        few |= {"save_every": steps, "retention": None, "wandb": None}
        settings = recipe.train.model_copy(update=few)
        train(recipe.model_copy(update={"run": folder, "train": settings}), report=lines.append)
    seconds = [line["seconds"] for line in lines]
    step_s = statistics.median(seconds[first + 1 :])
    first_s = statistics.median(seconds[1:first]) if first else None
    skipping = recipe.train.adapter_first
    total_s = skipping * (first_s or 0.0) + (recipe.train.steps - skipping) * step_s
    device = f"CPU, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return Cost(step_s, first_s, total_s, lines[-1]["memory_gb"], device)


def show_plan(plan: Plan, console: "Console") -> None:
    """Print the plan as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads = "source|conversations|share|drawn|epochs|hours|positions|supervised|left out"
    for n, head in enumerate(heads.split("|")):
        table.add_column(head, justify="right" if n else "left")
    for s in plan.sources:
        left_out = f"{s.too_long:.1%} too long, {s.unusable:.1%} unusable"
        cells = [
            f"{s.name} {s.kind}".strip(),
            f"{s.size:,}",
            f"{s.share:.1%}",
            f"{s.draws:,}",
            f"{s.epochs:.2f}",
            f"{s.hours:,.2f}",
            f"{s.positions:,}",
            f"{s.supervised:,}",
            left_out if s.too_long or s.unusable else "",
        ]
        table.add_row(*map(Text, cells))
    console.print(table)
    hours = sum(source.hours for source in plan.sources)
    positions = sum(source.positions for source in plan.sources)
    console.print(f"\n{plan.steps:,} steps, {positions:,} positions, {hours:,.1f} hours of speech")
    if plan.cost:
        cost = plan.cost
        first = f" ({cost.first_s:.2f} s without the LLM)" if cost.first_s else ""
        console.print(
            f"{cost.step_s:.2f} s a step{first} on {cost.device}, "
            f"{cost.total_s / 3600:.1f} hours in all; "
            f"{cost.memory_gb:.1f} GB at the peak"
        )


def _sources(
    recipe: Recipe, sources: Sequence[Source], found: Sequence[Lengths]
) -> tuple[SourcePlan, ...]:
    blend = Blend(
        [len(source) for source in sources],
        [source.weight for source in sources],
        recipe.train.seed,
        [source.epochs for source in sources],
    )
    total = recipe.train.steps * recipe.train.rows_per_step * recipe.train.tokens_per_batch
    usable = [1 - lengths.too_long - lengths.unusable for lengths in found]
    means = [lengths.positions * part for lengths, part in zip(found, usable, strict=True)]
    if not any(means):
        raise ValueError(
            "no conversation that was looked at can be used; see what is wrong with vtb doctor"
        )
    draws = _draws_for(blend, means, total)
    counts = blend.counts(draws)
    return tuple(
        SourcePlan(
            source.name,
            source.kind,
            len(source),
            number,
            number / draws,
            number * part * lengths.audio_s / 3600,
            round(number * part * lengths.positions),
            round(number * part * lengths.supervised),
            lengths.too_long,
            lengths.unusable,
        )
        for source, lengths, part, number in zip(sources, found, usable, counts, strict=True)
    )


def _draws_for(blend: Blend, means: Sequence[float], total: int) -> int:
    """Return how many draws give `total` positions, if each source's have their mean length."""
    least, most = 1, 2
    while _positions(blend, means, most) < total:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        if _positions(blend, means, middle) < total:
            least = middle
        else:
            most = middle
    return most


def _positions(blend: Blend, means: Sequence[float], draws: int) -> float:
    return sum(n * mean for n, mean in zip(blend.counts(draws), means, strict=True))
