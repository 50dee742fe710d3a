"""What is in the data: conversations counted, measured and checked, without a model.

`examine` looks at one conversation after the other; `inspect` adds up what it finds. What a
conversation says of itself is kept as one joint count, of which every table is a margin.
"""

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from voicetextblender.audio import probe_duration
from voicetextblender.chat import Audio, Conversation, Text
from voicetextblender.data.records import Records
from voicetextblender.prompt import IGNORE, Prompt, Prompter
from voicetextblender.text import normalise

if TYPE_CHECKING:
    from rich.console import Console

Check = Literal[
    "missing audio",
    "broken audio",
    "clip past the end",
    "same clip twice",
    "duplicate",
    "in the test set",
    "no prompt",
]
Speech = Literal["real", "synthetic", "unstated", "text only"]
UNSTATED = "unstated"

_SLACK_S = 0.05  # a stated duration may be rounded, and a codec may pad its last packet
_PERCENTILES = (0, 5, 50, 95, 100)
_SENTENCE_ENDS = re.compile(r"(?<=[.?!。？！])\s*")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a conversation says of itself, in the words that tables and filters show."""

    task: str
    language: str
    voice: str
    """`meta.speaker` or `meta.voice`."""
    speech: Speech
    """Synthetic if `meta` says so or names a voice, real if it denies it or names a speaker."""
    licence: str
    source: str


@dataclass(frozen=True, slots=True)
class Examined:
    """One conversation and what was found in it."""

    conversation: Conversation
    facts: Facts
    failed: Mapping[Check, str]
    """The checks that failed, each with a sentence that says why."""
    clips_s: tuple[float, ...]
    """Seconds of each clip that its file really has; 0 where there is no sound to be had."""
    text_tokens: int
    answer_tokens: int
    prompt: Prompt | None
    """None without a tokenizer, or if the conversation has no prompt."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the data."""

    conversations: int
    clips: int
    seconds: float

    @property
    def hours(self) -> float:
        return self.seconds / 3600


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long things are: the sum, and the least, 5 %, median, 95 % and greatest."""

    total: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found."""

    paths: tuple[str, ...]
    shares: Mapping[Facts, Share]
    clip_s: Lengths | None
    """None if there is no clip with sound."""
    text_tokens: Lengths
    answer_tokens: Lengths
    tokens: str
    """What a token is: `words`, or tokens of the tokenizer that was named."""
    failed: Mapping[Check, tuple[str, ...]]
    """Ids of the conversations that failed each check that was made."""

    @property
    def whole(self) -> Share:
        """All of the data."""
        return _sum(self.shares.values())

    def by(self, *names: str) -> dict[tuple[str, ...], Share]:
        """Return the share of every combination of the named facts, the greatest first."""
        groups: dict[tuple[str, ...], list[Share]] = {}
        for facts, share in self.shares.items():
            values = {field.name: str(getattr(facts, field.name)) for field in fields(facts)}
            groups.setdefault(tuple(values[name] for name in names), []).append(share)
        summed = {key: _sum(shares) for key, shares in groups.items()}
        return dict(
            sorted(summed.items(), key=lambda item: (-item[1].seconds, -item[1].conversations))
        )

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON values; hours are rounded to a tenth of a second."""
        whole = self.whole
        return {
            "paths": list(self.paths),
            "conversations": whole.conversations,
            "clips": whole.clips,
            "hours": round(whole.hours, 5),
            **{
                field.name: {
                    key: {
                        "conversations": share.conversations,
                        "clips": share.clips,
                        "hours": round(share.hours, 5),
                    }
                    for (key,), share in self.by(field.name).items()
                }
                for field in fields(Facts)
            },
            "tokens": self.tokens,
            "text_tokens": _lengths_to_json(self.text_tokens),
            "answer_tokens": _lengths_to_json(self.answer_tokens),
            "clip_s": self.clip_s and _lengths_to_json(self.clip_s),
            "failed": {check: list(ids) for check, ids in self.failed.items()},
        }


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must not be trained on."""

    sentences: frozenset[str]
    """Normalised sentences that are said or answered in it."""
    clips: frozenset[Audio]
    """Its clips, without their texts."""


def read(
    paths: Sequence[str], progress: Callable[[float], None] = lambda share: None
) -> Iterator[Conversation]:
    """Yield the conversations of every path, each a JSONL file or a glob.

    Raises ValueError as `Records` does, for all paths before the first conversation.
    """
    sources = [Records(path) for path in paths]
    total = sum(map(len, sources))
    done = 0
    for source in sources:
        for number in range(len(source)):
            yield source[number]
            done += 1
            progress(done / total)


def read_held_out(path: str) -> HeldOut:
    """Read what a test set says, plays and answers. Raises ValueError as `Records` does."""
    records = Records(path)
    return HeldOut(
        frozenset(sentence for c in records for sentence in _sentences(c)),
        frozenset(_place(clip) for c in records for clip in c.clips),
    )


def examine(
    conversations: Iterable[Conversation],
    prompter: Prompter | None = None,
    held_out: HeldOut | None = None,
) -> Iterator[Examined]:
    """Look at one conversation after the other; headers of sound files are read, no sound is.

    Tokens are words, or the prompter's. A conversation is a duplicate if an earlier one has the
    same words and answers, and has a clip twice if an earlier one of its task has it, or itself.
    """
    seen_words: dict[int, str] = {}
    seen_clips: dict[tuple[str, Audio], str] = {}
    for conversation in conversations:
        failed: dict[Check, str] = {}
        clips_s = tuple(_probe(clip, failed) for clip in conversation.clips)
        words = hash((conversation.task, _words(conversation)))  # a set of texts would be big
        if words in seen_words:
            failed["duplicate"] = f"same words and answers as '{seen_words[words]}'"
        seen_words.setdefault(words, conversation.id)
        for clip in map(_place, conversation.clips):
            key = (conversation.task, clip)
            if key in seen_clips:
                failed["same clip twice"] = f"{clip.audio} is also in '{seen_clips[key]}'"
            seen_clips.setdefault(key, conversation.id)
        if held_out and (why := _overlap(conversation, held_out)):
            failed["in the test set"] = why
        prompt = None
        if prompter:
            try:
                prompt = prompter.encode(conversation)
            except ValueError as error:
                failed["no prompt"] = str(error)
        text_tokens, answer_tokens = _tokens(conversation, prompt)
        yield Examined(
            conversation, facts(conversation), failed, clips_s, text_tokens, answer_tokens, prompt
        )


def inspect(
    paths: Sequence[str],
    prompter: Prompter | None = None,
    tokens: str = "words",
    held_out: HeldOut | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Inspection:
    """Count, measure and check all conversations; `tokens` names the prompter's tokens.

    Raises ValueError for a path without conversations, or a line that is none.
    """
    failed: dict[Check, list[str]] = {
        check: []
        for check in get_args(Check)
        if (check != "no prompt" or prompter) and (check != "in the test set" or held_out)
    }
    shares: dict[Facts, Share] = {}
    clips_s, text_tokens, answer_tokens = array("d"), array("L"), array("L")
    for examined in examine(read(paths, progress), prompter, held_out):
        share = Share(1, len(examined.clips_s), sum(examined.clips_s))
        before = shares.get(examined.facts)
        shares[examined.facts] = _sum((before, share)) if before else share
        clips_s.extend(seconds for seconds in examined.clips_s if seconds)
        text_tokens.append(examined.text_tokens)
        answer_tokens.append(examined.answer_tokens)
        for check in examined.failed:
            failed[check].append(examined.conversation.id)
    return Inspection(
        tuple(paths),
        shares,
        _lengths(clips_s) if clips_s else None,
        _lengths(text_tokens),
        _lengths(answer_tokens),
        tokens,
        {check: tuple(ids) for check, ids in failed.items()},
    )


def show(inspection: Inspection, console: "Console") -> None:
    """Print tables; text from the data cannot steer the terminal."""
    from rich.table import Table
    from rich.text import Text as Plain

    def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for place, name in enumerate(head):
            is_number = place > 0 and name != "such as"
            drawn.add_column(name, justify="right" if is_number else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(Plain(_printable(cell)) for cell in row))
        console.print(drawn, "")

    for field in fields(Facts):
        rows = [
            (value, f"{share.conversations:,}", f"{share.clips:,}", f"{share.hours:,.3f}")
            for (value,), share in inspection.by(field.name).items()
        ]
        table((field.name, "conversations", "clips", "hours"), rows)
    lengths = [
        (f"text, {inspection.tokens}", inspection.text_tokens, "{:,.0f}"),
        (f"answers, {inspection.tokens}", inspection.answer_tokens, "{:,.0f}"),
    ]
    if inspection.clip_s:
        lengths.append(("clips, seconds", inspection.clip_s, "{:,.1f}"))
    table(
        ("length", "least", "5 %", "median", "95 %", "greatest", "sum"),
        [
            (name, *map(form.format, (*measured.percentiles, measured.total)))
            for name, measured, form in lengths
        ],
    )
    table(
        ("failed check", "conversations", "such as"),
        [(check, f"{len(ids):,}", ", ".join(ids[:3])) for check, ids in inspection.failed.items()],
    )
    whole = inspection.whole
    total = f"{whole.conversations:,} conversations, {whole.clips:,} clips, {whole.hours:,.3f} h"
    console.print(Plain(total, "bold"))


def facts(conversation: Conversation) -> Facts:
    """Return what a conversation says of itself."""
    meta = conversation.meta
    is_text = not conversation.clips
    speech: Speech = UNSTATED
    if is_text:
        speech = "text only"
    elif isinstance(meta.get("synthetic"), bool):
        speech = "synthetic" if meta["synthetic"] else "real"
    elif "voice" in meta:
        speech = "synthetic"
    elif "speaker" in meta:
        speech = "real"
    return Facts(
        task=conversation.task,
        language=conversation.lang or UNSTATED,
        voice="text only" if is_text else str(meta.get("speaker") or meta.get("voice") or UNSTATED),
        speech=speech,
        licence=str(meta.get("license") or UNSTATED),
        source=str(meta.get("source") or UNSTATED),
    )


def _probe(clip: Audio, failed: dict[Check, str]) -> float:
    """Return the seconds of sound in a clip, and note what is wrong with it."""
    try:
        left_s = probe_duration(clip.audio) - clip.start
    except FileNotFoundError as error:
        failed["missing audio"] = str(error)
        return 0.0
    except (ValueError, OSError) as error:
        failed["broken audio"] = str(error)
        return 0.0
    wanted_s = clip.duration or 0.0
    if left_s <= 0 or left_s + _SLACK_S < wanted_s:
        failed["clip past the end"] = (
            f"{clip.audio}: {max(left_s, 0):.2f} s from {clip.start:g} s to its end, "
            f"where the clip is to last {f'{wanted_s:.2f} s' if wanted_s else 'some time'}"
        )
    return max(0.0, min(left_s, clip.duration or left_s))


def _place(clip: Audio) -> Audio:
    """Return a clip as it is equal to another of the same sound: path made plain, no text."""
    return Audio(os.path.normpath(clip.audio), clip.start, clip.duration)


def _words(conversation: Conversation) -> tuple[str, ...]:
    """Return what makes two conversations the same: clips' texts and answers, or all text."""
    words = []
    for turn in conversation.messages:
        for part in turn.parts:
            if isinstance(part, Audio):
                words.append(repr(_place(part)) if part.text is None else part.text)
            elif turn.role == "assistant" or not conversation.clips:
                words.append(part.text)
    return tuple(normalise(word, "none") for word in words)


def _sentences(conversation: Conversation) -> Iterator[str]:
    """Yield the normalised sentences of clips, answers and, without clips, questions."""
    for turn in conversation.messages:
        for part in turn.parts:
            is_instruction = isinstance(part, Text) and turn.role != "assistant"
            if part.text and not (is_instruction and conversation.clips):
                yield from filter(None, map(normalise, _SENTENCE_ENDS.split(part.text)))


def _overlap(conversation: Conversation, held_out: HeldOut) -> str | None:
    for clip in map(_place, conversation.clips):
        if clip in held_out.clips:
            return f"{clip.audio} is a clip of the test set"
    for sentence in _sentences(conversation):
        if sentence in held_out.sentences:
            return f"the test set has the sentence '{sentence}'"
    return None


def _tokens(conversation: Conversation, prompt: Prompt | None) -> tuple[int, int]:
    """Return the number of tokens of all text and of the answers; words without a prompt."""
    if prompt:
        supervised = sum(label != IGNORE for label in prompt.labels)
        return len(prompt.ids) - len(prompt.slots), supervised
    text = answers = 0
    for turn in conversation.messages:
        words = sum(len(part.text.split()) for part in turn.parts if isinstance(part, Text))
        text += words
        answers += words if turn.role == "assistant" else 0
    return text, answers


def _sum(shares: Iterable[Share]) -> Share:
    rows = [(share.conversations, share.clips, share.seconds) for share in shares]
    conversations, clips, seconds = zip(*rows, strict=True)
    return Share(sum(conversations), sum(clips), sum(seconds))


def _lengths(values: "array[int] | array[float]") -> Lengths:
    return Lengths(sum(values), tuple(map(float, np.percentile(values, _PERCENTILES))))


def _lengths_to_json(lengths: Lengths) -> dict[str, float]:
    names = ("min", "p5", "median", "p95", "max")
    rounded = (round(value, 3) for value in lengths.percentiles)
    return {"total": round(lengths.total, 3), **dict(zip(names, rounded, strict=True))}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)
