"""A run's results: what its folder tells, so that a report needs neither model nor training.

Read are `recipe.yaml`, `log.jsonl`, `model/provenance.json`, and in `eval/` the scores
`before.json`, `after.json`, `whisper.json` and `retention.json`. What is not there is left out.
"""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voicetextblender import audio
from voicetextblender.config import Recipe, load_recipe
from voicetextblender.data.blend import Blend
from voicetextblender.data.records import Records
from voicetextblender.eval.asr import AsrResult, read_results
from voicetextblender.eval.old_retention import Retention, read_retention
from voicetextblender.train.loop import read_log

_SAMPLED = 1000  # conversations of a source from which the length of its clips is estimated


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run's folder tells."""

    folder: Path
    recipe: Recipe | None
    log: list[dict]
    """Lines as `train.loop.Tally.line` makes them."""
    provenance: dict[str, str]
    before: dict[str, AsrResult]
    after: dict[str, AsrResult]
    whisper: dict[str, AsrResult]
    retention: Retention | None

    @property
    def sets(self) -> dict[str, AsrResult]:
        """Every set that was transcribed by anyone, those that were not trained on first."""
        known = self.before | self.whisper | self.after
        return dict(sorted(known.items(), key=lambda item: (item[1].seen, item[1].speech)))


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What one source of the blend was to give, and gave."""

    name: str
    planned: float
    """Share of the conversations drawn, from 0 to 1."""
    drawn: int
    realised: float
    tokens: int
    """Supervised tokens."""
    epochs: float | None
    """None where the data is no longer at its place; `hours` likewise."""
    hours: float | None
    """Speech heard, repeats included."""


def read_run(folder: Path) -> Run:
    """Read what there is of a run."""
    recipe, provenance = folder / "recipe.yaml", folder / "model" / "provenance.json"
    return Run(
        folder=folder,
        recipe=load_recipe(recipe) if recipe.is_file() else None,
        log=read_log(folder),
        provenance=json.loads(provenance.read_text()) if provenance.is_file() else {},
        before=read_results(folder / "eval" / "before.json"),
        after=read_results(folder / "eval" / "after.json"),
        whisper=read_results(folder / "eval" / "whisper.json"),
        retention=read_retention(folder / "eval" / "retention.json"),
    )


def source_facts(recipe: Recipe, log: Sequence[dict]) -> list[SourceFacts]:
    """Return what each source was to give and gave, up to the log's last line."""
    weights = [source.weight for source in recipe.blend]
    records = [
        Records(source.path) if glob.glob(source.path, recursive=True) else None
        for source in recipe.blend
    ]
    sizes = [len(found) if found else 1 for found in records]
    draws = log[-1]["draw"]
    drawn = Blend(sizes, weights, recipe.train.seed).counts(draws)
    return [
        SourceFacts(
            name=source.name,
            planned=source.weight / sum(weights),
            drawn=number,
            realised=number / max(1, draws),
            tokens=sum(line["tokens_by_source"].get(source.name, 0) for line in log),
            epochs=number / len(found) if found else None,
            hours=number * mean_speech_s(found) / 3600 if found else None,
        )
        for source, found, number in zip(recipe.blend, records, drawn, strict=True)
    ]


def mean_speech_s(records: Records) -> float:
    """Return the mean seconds of speech in a conversation, from at most _SAMPLED of them."""
    number = min(len(records), _SAMPLED)
    clips = [clip for n in range(number) for clip in records[n * len(records) // number].clips]
    seconds = (c.duration or audio.probe_duration(c.audio) - c.start for c in clips)
    return sum(seconds) / number
