"""Suites: what an evaluation asks, and the items that it asks, one file of conversations a set.

An item is a conversation whose last turn is the reference answer; `task` and `meta` say how it is
scored. The items of an evaluation are written beside its predictions, so that scoring needs nothing
else: neither the model nor the place where the data came from.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from voicetextblender.chat import Conversation, assistant, to_line
from voicetextblender.data.records import Records, spread, write_lines
from voicetextblender.eval.conditions import NOTHING
from voicetextblender.eval.generators import make
from voicetextblender.settings import Settings, read_yaml, validate

FEWEST = 5
"""Items below which a group is not scored apart: so few hardly differ from one to the next."""

_PER_CONDITION = {"conditions": 1, "nothing": len(NOTHING)}
"""The `number` that makes one item of each condition."""


class EvalSet(Settings):
    """One set of an evaluation: conversations whose last turn is the reference answer."""

    name: Annotated[str, Field(pattern=r"^[^/\\\s][^/\\]*$")]
    """Names its files and its rows in reports, such as `phone-prompts`."""

    path: str | None = None
    """JSONL file of conversations, or a text; in a suite file, relative to the suite's folder."""

    make: str | None = None
    """Generator that makes the set, of nothing or of `path`; docs/sets.md lists them."""

    number: PositiveInt = 40
    """Items that the generator makes, or conversations of `path` that it begins with."""

    voices: tuple[str, ...] = ("hibari",)
    """Who speaks where the generator needs a voice; named as in `vtb synth`."""

    seed: NonNegativeInt = 0
    """Seed of the generator."""

    speech: Literal["real", "synthetic", "none"]
    """Whose voice it is: the two are never added up. none: the set is typed."""

    scorer: str
    """What the answers are scored by: wer, translation, qa, choice, number, check, perplexity, …"""

    normaliser: str = "basic"
    """Form in which words are compared: basic, none, whisper-english, whisper-basic."""

    merge_compounds: bool = False
    """Whether "ice cream" and "icecream" count as the same."""

    by: tuple[str, ...] = ("lang",)
    """Groups that are scored apart: `lang`, or any field of the conversations' meta."""

    limit: PositiveInt | None = None
    """Conversations to take, evenly spaced through the file; null takes all."""

    seen: bool = False
    """Whether the model was trained on these very conversations."""

    max_new_tokens: PositiveInt = 128
    """Longest answer, in tokens."""

    systems: tuple[str, ...] | None = None
    """Who answers (docs/evaluation.md); null takes those that make sense."""

    @model_validator(mode="after")
    def _is_a_file_or_made(self) -> Self:
        if self.path is None and self.make is None:
            raise ValueError(f"set '{self.name}' must have 'path', or 'make', or both")
        return self


class Suite(Settings):
    """What an evaluation asks."""

    name: str
    """Name in the report."""

    sets: tuple[EvalSet, ...] = ()
    """The sets of conversations."""

    include: tuple[str, ...] = ()
    """Other suite files, relative to this one, whose sets are asked before these."""

    judge: str | None = None
    """Who judges open answers: `http://host/v1#MODEL`, or a part such as qwen2.5-0.5b."""

    asr: str = "whisper-base"
    """The speech recogniser that is compared with, and that the cascade begins with."""

    tokens_per_batch: PositiveInt = 16384
    """Positions that are answered together: prompts and answers, audio and text.

    A step of many answers takes hardly longer than one of few: 48 together take a third of the time
    that they take in twelves.
    """

    @model_validator(mode="after")
    def _set_names_differ(self) -> Self:
        names = [one.name for one in self.sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sets name '{twice[0]}' twice; each set needs its own name")
        return self


def load_suite(path: str | Path, includers: Sequence[Path] = ()) -> Suite:
    """Read a suite; its paths become absolute. Raises ValueError that names file and key.

    `includers` are the suites that led to it, of which it cannot be one.
    """
    path = Path(path)
    if path.resolve() in includers:
        raise ValueError(f"{path}: a suite cannot include itself; take it out of 'include'")
    suite = validate(Suite, read_yaml(path, "suite", "'name' and 'sets'"), str(path))
    folder = path.parent.absolute()
    own = tuple(
        one if one.path is None else one.model_copy(update={"path": str(folder / one.path)})
        for one in suite.sets
    )
    led_here = (*includers, path.resolve())
    included = tuple(
        one for other in suite.include for one in load_suite(folder / other, led_here).sets
    )
    whole = suite.model_copy(update={"sets": (*included, *own), "include": ()})
    return validate(Suite, whole.model_dump(), str(path))


def shortened(suite: Suite, limit: int) -> Suite:
    """Return a suite that asks at most so many items of each set, and makes no more.

    Of sets made to compare conditions FEWEST clips are kept in each, as a table by condition needs.
    """
    sets = []
    for one in suite.sets:
        fewer = {"limit": min(limit, one.limit or limit), "number": min(limit, one.number)}
        if one.make in _PER_CONDITION:
            fewer = {"number": min(one.number, FEWEST * _PER_CONDITION[one.make])}
        sets.append(one.model_copy(update=fewer))
    return suite.model_copy(update={"sets": tuple(sets)})


def write_items(of: EvalSet, out: Path) -> list[Conversation]:
    """Write a set's items to `out/items/SET.jsonl`, and return them as they are read back.

    Of a text file (`.txt`) every line is an item: an answer to nothing, for its perplexity. Raises
    ValueError for an item without a reference answer, or an id that is there twice.
    """
    folder = out / "items"
    items: dict[str, Conversation] = {}
    source = source_file(of, out)
    records = Records(str(source))
    for place in spread(len(records), of.limit or len(records)):
        item = records[place]
        where = f"{source}: conversation '{item.id}'"
        if item.messages[-1].role != "assistant":
            raise ValueError(
                f"{where} ends with a turn of the {item.messages[-1].role}; "
                f"an item of an evaluation must end with the reference answer"
            )
        if item.id in items:
            raise ValueError(f"{where} is there twice; give each conversation its own id")
        items[item.id] = item.with_clips(
            [replace(clip, audio=os.path.relpath(clip.audio, folder)) for clip in item.clips]
        )
    write_lines(folder / f"{of.name}.jsonl", items.values())
    return read_items(out, of.name)


def read_items(out: Path, name: str) -> list[Conversation]:
    """Return the items of a set that was asked. Raises ValueError if there are none."""
    return [*Records(str(out / "items" / f"{name}.jsonl"))]


def source_file(of: EvalSet, out: Path) -> Path:
    """Return a set's file of conversations, made if need be. Raises ValueError."""
    if of.make is None:
        assert of.path is not None
        return _passages(of, out) if of.path.endswith(".txt") else Path(of.path)
    of_what = (of.make, of.seed, of.number, of.voices, of.path)
    folder = out / "made" / f"{of.name}-{hashlib.sha256(repr(of_what).encode()).hexdigest()[:8]}"
    path = folder / "items.jsonl"
    if not path.is_file():
        make(of.make, folder, of.seed, of.number, of.voices, of.path)
    return path


def _passages(of: EvalSet, out: Path) -> Path:
    """Write the passages of a text, one a line, as items without a question."""
    assert of.path is not None
    path = out / "made" / of.name / "items.jsonl"
    lines = Path(of.path).read_text(encoding="utf-8").split("\n")
    passages = [line.strip() for line in lines if line.strip()]
    write_lines(
        path,
        [Conversation(f"passage-{n}", (assistant(text),)) for n, text in enumerate(passages, 1)],
    )
    return path


def question(item: Conversation) -> Conversation:
    """Return an item without its reference answer."""
    return replace(item, messages=item.messages[:-1])


def reference(item: Conversation) -> str:
    """Return an item's reference answer."""
    return "".join(part.text or "" for part in item.messages[-1].parts)


def asked_in_writing(item: Conversation) -> str:
    """Return what an item asks as text, its clips as what is said in them."""
    return "\n".join(part.text or "" for turn in question(item).messages for part in turn.parts)


def digest(items: Sequence[Conversation]) -> str:
    """Return the SHA-256 of items, which does not depend on the folder that their clips are in."""
    lines = sorted(to_line(without_folders(item)) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def without_folders(item: Conversation) -> Conversation:
    """Return an item whose clips are named by their file alone."""
    clips = [replace(clip, audio=os.path.basename(clip.audio)) for clip in item.clips]
    return item.with_clips(clips)
