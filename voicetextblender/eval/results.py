"""What a folder tells: a training run, an evaluation, or a run with its evaluation in `eval/`.

A report needs neither model nor training. What is not there is left out.
"""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from voicetextblender.config import Recipe, load_recipe
from voicetextblender.data.records import Records, spread
from voicetextblender.eval.predict import predictions_file, read_predictions, seconds_of
from voicetextblender.eval.scores import Score, read_scores
from voicetextblender.train.log import read_log

_SAMPLED = 1000  # conversations of a source from which the length of its clips is estimated


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run's folder tells, and an evaluation's."""

    name: str
    evaluation: Path
    """Folder of `items` and `predictions`."""
    recipe: Recipe | None
    log: list[dict]
    """Lines as `train.loop.Tally.line` makes them."""
    provenance: dict[str, str]
    scores: list[Score]
    """Rows of the evaluation; those of the untrained model have the system `before`."""

    def sets(self, *speech: str) -> dict[str, Score]:
        """Return a row of every set of such speech; what was trained on comes last."""
        first: dict[str, Score] = {}
        for row in self.scores:
            if row.speech in speech and row.against is None and row.by is None:
                first.setdefault(row.set, row)
        return dict(sorted(first.items(), key=lambda item: (item[1].seen, item[1].speech)))

    def row(
        self,
        of: Score,
        system: str,
        *,
        metric: str | None = None,
        against: str | None = None,
        by: str | None = None,
        group: str | None = None,
    ) -> Score | None:
        """Return a system's row of the set and metric of another row."""
        wanted = (of.set, system, metric or of.metric, against, by, group)
        fields = attrgetter("set", "system", "metric", "against", "by", "group")
        return next((score for score in self.scores if fields(score) == wanted), None)

    def is_identical(self, name: str) -> bool | None:
        """Whether with the voice off every logit of a text was the LLM's own; None: not asked."""
        files = [predictions_file(self.evaluation, system, name) for system in ("base", "llm")]
        if not all(path.is_file() for path in files):
            return None
        base, llm = [[p.answer for p in read_predictions(path)] for path in files]
        return base == llm


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
    """Read what there is of a run and of its evaluation; either may be the folder that is named."""
    evaluation = folder if (folder / "suite.yaml").is_file() else folder / "eval"
    run = next((f for f in (folder, folder.parent) if (f / "recipe.yaml").is_file()), folder)
    recipe, provenance = run / "recipe.yaml", run / "model" / "provenance.json"
    before = read_scores(evaluation / "before" / "results.json")
    return Run(
        name=run.resolve().name,
        evaluation=evaluation,
        recipe=load_recipe(recipe) if recipe.is_file() else None,
        log=read_log(run),
        provenance=json.loads(provenance.read_text()) if provenance.is_file() else {},
        scores=[
            *read_scores(evaluation / "results.json"),
            *(replace(row, system="before") for row in before if row.against is None),
        ],
    )


def source_facts(recipe: Recipe, log: Sequence[dict]) -> list[SourceFacts]:
    """Return what each source was to give and, as the log has it, gave."""
    weights = [source.weight for source in recipe.blend]
    counts = [_counted(log, "conversations_by_source", source.name) for source in recipe.blend]
    records = [
        Records(source.path) if glob.glob(source.path, recursive=True) else None
        for source in recipe.blend
    ]
    return [
        SourceFacts(
            name=source.name,
            planned=source.weight / sum(weights),
            drawn=number,
            realised=number / max(1, sum(counts)),
            tokens=_counted(log, "tokens_by_source", source.name),
            epochs=number / len(found) if found else None,
            hours=number * mean_speech_s(found) / 3600 if found else None,
        )
        for source, found, number in zip(recipe.blend, records, counts, strict=True)
    ]


def mean_speech_s(records: Records) -> float:
    """Return the mean seconds of speech in a conversation, from at most _SAMPLED of them."""
    places = spread(len(records), _SAMPLED)
    return sum(seconds_of(clip) for n in places for clip in records[n].clips) / len(places)


def _counted(log: Sequence[dict], key: str, source: str) -> int:
    return sum(line[key].get(source, 0) for line in log)
