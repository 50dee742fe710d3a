"""Results: rows of numbers, each of which says by itself how it was made.

`score_folder` reads what an evaluation asked and what was answered, and nothing else, so it needs
no model; scoring the same folder twice writes the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter

from voicetextblender.chat import Conversation
from voicetextblender.data.records import Records
from voicetextblender.eval.metrics import Estimate, Metric, difference, estimate
from voicetextblender.eval.predict import Prediction, predictions_file, read_predictions
from voicetextblender.eval.scorers import Answers, compare, scorer
from voicetextblender.eval.suite import EvalSet, Suite, digest, read_items
from voicetextblender.settings import validate

Verdict = Literal["better", "kept", "unclear", "alarm"]

_TOLERATED = {"perplexity": 0.03, "kl": 0.1}  # a share of the base's; nats
_TOLERATED_POINTS = 0.02  # of anything else


@dataclass(frozen=True, slots=True)
class Score:
    """One number, and all that is needed to make it again."""

    set: str
    system: str
    metric: str
    value: float
    """A fraction where `unit` is `%`."""
    low: float
    """The 95 % bootstrap interval, by drawing whole items anew."""
    high: float
    num_items: int
    against: str | None
    """Set where the value is how far this system is above that one, on the same items."""
    by: str | None
    """The field whose `group` was scored; None is the whole set."""
    group: str | None
    better: str
    unit: str
    task: str
    speech: str
    seen: bool
    scored_with: str
    decoding: str
    model: str
    data_sha256: str
    audio_s: float
    """Seconds of speech in the items."""
    seconds: float
    """Time that the answers took."""
    verdict: Verdict | None = None
    """What became of the base LLM's ability, where it is one of text that was measured."""


_SCORES = TypeAdapter(list[Score])


def score_folder(out: Path) -> list[Score]:
    """Score all predictions of an evaluation's folder; write `out/results.json`.

    Raises ValueError for a folder that is none, and for predictions that are not of its items.
    """
    suite = read_suite(out)
    scores = [row for of in suite.sets for row in score_set(of, suite, out)]
    (out / "results.json").write_bytes(dump_scores(scores))
    return scores


def score_files(
    predictions: Path, references: Path, scorer: str, normaliser: str, merge_compounds: bool
) -> list[Score]:
    """Score answers, whoever made them, against conversations that end with the reference.

    Raises ValueError for what does not fit together.
    """
    of = EvalSet(
        name=references.stem,
        path=str(references),
        speech="none",
        scorer=scorer,
        normaliser=normaliser,
        merge_compounds=merge_compounds,
    )
    items = [*Records(str(references))]
    found = in_order_of(items, read_predictions(predictions), predictions)
    answers = Answers(items, found, normaliser, merge_compounds)
    return _rows_of(of, {predictions.stem: answers})


def dump_scores(scores: list[Score]) -> bytes:
    """Return rows as JSON."""
    return _SCORES.dump_json(scores, indent=1) + b"\n"


def read_scores(path: Path) -> list[Score]:
    """Return the rows of a `results.json`; none if there is no such file."""
    return _SCORES.validate_json(path.read_bytes()) if path.is_file() else []


def read_suite(out: Path) -> Suite:
    """Return the suite that an evaluation's folder was asked. Raises ValueError."""
    path = out / "suite.yaml"
    if not path.is_file():
        raise ValueError(
            f"{out}: no suite.yaml here, so it is no evaluation; run vtb eval MODEL SUITE --out DIR"
        )
    return validate(Suite, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def score_set(of: EvalSet, suite: Suite, out: Path) -> list[Score]:
    """Score what every system answered to a set. Raises ValueError."""
    items = read_items(out, of.name)
    kind = (of.normaliser, of.merge_compounds, suite.judge, out / "judged")
    asked = {}
    for folder in sorted((out / "predictions").glob("*")):
        path = predictions_file(out, folder.name, of.name)
        if path.is_file():
            found = in_order_of(items, read_predictions(path), path)
            asked[folder.name] = Answers(items, found, *kind)
    return _rows_of(of, asked)


def _rows_of(of: EvalSet, asked: Mapping[str, Answers]) -> list[Score]:
    """Score what each system answered to a set, alone, by group and against the others."""
    if not asked:
        return []
    items = next(iter(asked.values())).items
    data_sha256, whole = digest(items), [*range(len(items))]
    found = {system: scorer(of.scorer)(answers) for system, answers in asked.items()}
    rows = []
    for system, answers in asked.items():
        row = partial(_row, of, system, answers, data_sha256)
        for metric in found[system]:
            for by, group, places in [(None, None, whole), *groups(items, of.by)]:
                value = estimate(metric.of(places))
                verdict = judged(value, metric, 0.0) if metric.name == "kl" else None
                rows.append(row(metric, value, places, by=by, group=group, verdict=verdict))
        for other in (name for name in asked if name != system):
            for metric, theirs in zip(found[system], found[other], strict=True):
                gap = difference(metric, theirs)
                is_kept = of.speech == "none" and (system, other) == ("ours", "base")
                verdict = judged(gap, metric, estimate(theirs).value) if is_kept else None
                rows.append(row(metric, gap, whole, against=other, verdict=verdict))
                right = [place for place in whole if theirs.sums[place, 0]]
                if metric.name == "check" and other in ("typed", "base") and right:
                    both = replace(metric.of(right), name=f"kept_of_{other}")
                    rows.append(row(both, estimate(both), right))
            if of.scorer == "judge" and system == "ours":
                for metric in compare(answers, asked[other]):
                    rows.append(row(metric, estimate(metric), whole, against=other))
    # Of a group of which nothing could be judged there is no number.
    return [row for row in rows if math.isfinite(row.value)]


def judged(gap: Estimate, metric: Metric, base: float) -> Verdict:
    """Return whether a difference to the base LLM is a loss that is neither chance nor small."""
    sign = 1 if metric.better == "low" else -1
    loss, *ends = (sign * end for end in (gap.value, gap.low, gap.high))
    tolerated = _TOLERATED.get(metric.name, _TOLERATED_POINTS)
    if metric.name == "perplexity":
        tolerated *= base
    if max(ends) < 0:
        return "better"
    if min(ends) > 0 and loss > tolerated:
        return "alarm"
    return "kept" if max(ends) <= tolerated else "unclear"


def groups(items: Sequence[Conversation], by: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    """Return each group of each field as the places of its items.

    A field that all items have alike makes no groups, but for the language, which is always said.
    """
    found: list[tuple[str, str, list[int]]] = []
    for field in by:
        places: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            value = item.lang if field == "lang" else item.meta.get(field)
            if value is not None:
                places.setdefault(str(value), []).append(place)
        if len(places) > 1 or field == "lang":
            found += [(field, group, places[group]) for group in sorted(places)]
    return found


def in_order_of(
    items: Sequence[Conversation], predictions: Sequence[Prediction], path: Path
) -> list[Prediction]:
    """Return the predictions in the items' order.

    Raises ValueError if there is not just one for each item.
    """
    found = {prediction.id: prediction for prediction in predictions}
    ids = [item.id for item in items]
    if missing := [id for id in ids if id not in found]:
        raise ValueError(
            f"{path}: no prediction for {len(missing)} of {len(ids)} items, such as "
            f"'{missing[0]}'; run vtb eval again, which goes on where it stopped"
        )
    if odd := sorted(found.keys() - set(ids)) or len(predictions) - len(found):
        what = f"such as '{odd[0]}', which no item has" if isinstance(odd, list) else "twice"
        raise ValueError(
            f"{path}: ids {what}; predictions and references must be of the same items"
        )
    return [found[id] for id in ids]


def _row(
    of: EvalSet,
    system: str,
    answers: Answers,
    data_sha256: str,
    metric: Metric,
    found: Estimate,
    places: Sequence[int],
    *,
    against: str | None = None,
    by: str | None = None,
    group: str | None = None,
    verdict: Verdict | None = None,
) -> Score:
    tasks = {item.task for item in answers.items}
    predictions = [answers.predictions[place] for place in places]
    return Score(
        set=of.name,
        system=system,
        metric=metric.name,
        value=found.value,
        low=found.low,
        high=found.high,
        num_items=len(places),
        against=against,
        by=by,
        group=group,
        better=metric.better,
        unit=metric.unit,
        task=tasks.pop() if len(tasks) == 1 else "several",
        speech=of.speech,
        seen=of.seen,
        scored_with=metric.scored_with,
        decoding=answers.predictions[0].decoding,
        model=answers.predictions[0].model,
        data_sha256=data_sha256,
        audio_s=round(sum(p.audio_s for p in predictions), 3),
        seconds=round(sum(p.seconds for p in predictions), 3),
        verdict=verdict,
    )
