"""Predictions: what a system answers to each item, one JSON line an item, written as it comes.

A run that was stopped goes on where it was, and its predictions are those of a run that was not:
the batches follow from the items alone. What was asked of another model, with another decoding or
in other words is asked again. This module knows nothing of models and scores.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from voicetextblender.audio import probe_duration
from voicetextblender.chat import Audio, Conversation, to_line
from voicetextblender.eval.suite import EvalSet, question, read_items, without_folders

Advance = Callable[[float], None]
"""Is told the size, in `positions`, of the items that are answered since."""

_POSITIONS_PER_S = 12.5  # audio embeddings a second; an estimate for batches, nothing else
_CHARACTERS_PER_POSITION = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """What is read from a model's probabilities instead of being generated."""

    scores: list[float]
    """Log-probability of each choice, or whatever sums the set's scorer needs."""
    answer: str = ""


Measure = Callable[[Sequence[Conversation]], list[Measured]]
"""Reads whole items, with their reference answers."""

MEASURED = {
    "choice": "log-probability of each choice",
    "perplexity": "log-probability of the text",
    "kl": "probabilities along the reference answer",
}
"""Scorers whose sets are not answered with generated text, and what is read instead."""


@dataclass(frozen=True, slots=True)
class System:
    """Anything that answers items: a model as it is, with its voice off, a cascade."""

    name: str
    """Names its folder of predictions and its column in reports, such as `ours`."""
    model: str
    """Which model, with a digest of its weights."""
    decoding: str
    """How it answers, such as `greedy, bfloat16`."""
    answer: Callable[[Sequence[Conversation], int], list[str]]
    """Answers conversations that end with the user's turn, in at most so many tokens each."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """How it answers sets of the scorers in MEASURED, by scorer."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a system made of one item: a line of its file."""

    id: str
    asked: str = ""
    """Digest of the question."""
    model: str = "unknown"
    decoding: str = "unknown"
    answer: str = ""
    scores: tuple[float, ...] = ()
    """As in `Measured`."""
    audio_s: float = 0.0
    """Seconds of speech in the item."""
    seconds: float = 0.0
    """Time it took: its share of its batch's."""


def predict(
    system: System, of: EvalSet, out: Path, tokens_per_batch: int, advance: Advance | None = None
) -> list[Prediction]:
    """Have a system answer a set's items, which lie in `out`, and write the answers beside them.

    Raises ValueError if it needs probabilities that the system does not have.
    """
    items = read_items(out, of.name)
    decoding = f"{system.decoding}, at most {of.max_new_tokens} tokens"
    measure = system.measures.get(of.scorer)
    if of.scorer in MEASURED:
        decoding = MEASURED[of.scorer]
        if measure is None:
            raise ValueError(
                f"set '{of.name}' asks for the {decoding}, which '{system.name}' does not tell; "
                f"leave it out of the set's 'systems'"
            )
    asked = {item.id: asked_digest(item, of.scorer in MEASURED) for item in items}
    path = predictions_file(out, system.name, of.name)
    done = {
        p.id: p
        for p in read_predictions(path)
        if (p.asked, p.model, p.decoding) == (asked.get(p.id), system.model, decoding)
    }
    batches = list(batched(items, tokens_per_batch, 0 if measure else of.max_new_tokens))
    for batch in batches:
        if not all(item.id in done for item in batch):  # a batch that was cut off is made anew
            done = {id: p for id, p in done.items() if id not in {item.id for item in batch}}
    write_predictions(path, done.values())
    if advance is not None:
        advance(sum(positions(item) for item in items if item.id in done))
    with path.open("a", encoding="utf-8") as file:
        for batch in batches:
            if batch[0].id in done:
                continue
            started = time.perf_counter()
            if measure:
                found = measure(batch)
            else:
                answers = system.answer([question(item) for item in batch], of.max_new_tokens)
                found = [Measured([], answer) for answer in answers]
            seconds = round((time.perf_counter() - started) / len(batch), 4)
            for item, one in zip(batch, found, strict=True):
                done[item.id] = Prediction(
                    *(item.id, asked[item.id], system.model, decoding, one.answer),
                    scores=tuple(one.scores),
                    audio_s=round(sum(map(seconds_of, item.clips)), 3),
                    seconds=seconds,
                )
                file.write(_line(done[item.id]))
            file.flush()
            if advance is not None:
                advance(sum(map(positions, batch)))
    in_order = [done[item.id] for item in items]
    write_predictions(path, in_order)
    return in_order


def batched(
    items: Sequence[Conversation], tokens_per_batch: int, max_new_tokens: int
) -> Iterable[list[Conversation]]:
    """Yield items of about the same size together, as many as the positions allow."""
    sized = sorted(((positions(item), place) for place, item in enumerate(items)), reverse=True)
    batch, used = [], 0.0
    for size, place in sized:
        cost = size + max_new_tokens
        if batch and used + cost > tokens_per_batch:
            yield batch
            batch, used = [], 0.0
        batch.append(items[place])
        used += cost
    if batch:
        yield batch


def positions(item: Conversation) -> float:
    """Estimate the positions that an item takes, all its choices together."""
    size = 30.0  # what a chat template adds
    for turn in item.messages:
        for part in turn.parts:
            size += len(part.text or "") / _CHARACTERS_PER_POSITION
            if isinstance(part, Audio):
                size += _POSITIONS_PER_S * seconds_of(part)
    options = item.meta.get("choices")
    return size * len(options) if isinstance(options, list) and options else size


def seconds_of(clip: Audio) -> float:
    """Return the length of a clip."""
    return clip.duration or probe_duration(clip.audio) - clip.start


def choices(item: Conversation) -> list[str]:
    """Return the answers that an item offers. Raises ValueError if there are not two."""
    options = item.meta.get("choices")
    if (
        not isinstance(options, list)
        or len(options) < 2
        or not all(isinstance(o, str) and o for o in options)
    ):
        raise ValueError(
            f"conversation '{item.id}': meta.choices is {options!r:.60}; multiple choice needs a "
            f"list of two texts or more, of which the last turn is one"
        )
    return options


def asked_digest(item: Conversation, is_measured: bool) -> str:
    """Return a digest of what an item asks; the reference is part of it where it is measured."""
    asked = without_folders(item if is_measured else question(item))
    options = {"choices": item.meta["choices"]} if "choices" in item.meta else {}
    line = to_line(Conversation(item.id, asked.messages, item.task, item.lang, options))
    return hashlib.sha256(line.encode()).hexdigest()[:12]


def predictions_file(out: Path, system: str, name: str) -> Path:
    """Return where a system's answers to a set lie."""
    return out / "predictions" / system / f"{name}.jsonl"


def read_predictions(path: Path) -> list[Prediction]:
    """Return a file's predictions; a last line that a killed run left unfinished is dropped.

    Raises ValueError that names the line which is no prediction.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [_read(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a whole file of predictions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text("".join(map(_line, predictions)), encoding="utf-8")
    beside.replace(path)  # killed here, the old file is still whole


def _line(prediction: Prediction) -> str:
    return json.dumps(asdict(prediction), ensure_ascii=False) + "\n"


def _read(line: str, where: str) -> Prediction:
    try:
        record: Mapping = json.loads(line)
        if not isinstance(record["answer"], str):
            raise TypeError
        return Prediction(**{**record, "scores": tuple(record.get("scores", ()))})
    except (ValueError, TypeError, AttributeError, KeyError):
        raise ValueError(
            f"{where}: no prediction; each line must be a JSON object with 'id' and 'answer', "
            f"as vtb eval writes them"
        ) from None
