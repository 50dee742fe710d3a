"""Conversations: the one data record of the project, and its JSON form.

A conversation is a list of turns; a turn is a list of parts; a part is text or an audio clip. This
module knows nothing of files, tokens or tensors.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Text:
    """Words that the model reads, or, in an assistant turn, writes."""

    text: str


@dataclass(frozen=True, slots=True)
class Audio:
    """A clip: a file, a tar member (`shards/000.tar#0412.opus`), or a slice of either."""

    audio: str
    start: float = 0.0
    """Seconds into the file at which the clip begins."""
    duration: float | None = None
    """Seconds; None means to the end of the file."""
    text: str | None = None
    """What is said in the clip (its typed twin). Never shown to the model as text."""


Part = Text | Audio


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says before the other answers."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def clips(self) -> tuple[Audio, ...]:
        return tuple(part for part in self.parts if isinstance(part, Audio))

    @property
    def text(self) -> str:
        """What is typed in it, without its clips."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training or evaluation example: any number of turns, with clips in any user turn."""

    id: str
    messages: tuple[Turn, ...]
    task: str = "text"
    """`text`, `asr`, `ast`, `sqa`, `mixed`, or any word of the user's own."""
    lang: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)
    """Speaker, voice, licence, whatever else is known; reported, never shown to the model."""

    @property
    def clips(self) -> tuple[Audio, ...]:
        """Every clip, in the order in which the model hears them."""
        return tuple(clip for turn in self.messages for clip in turn.clips)

    def typed(self) -> "Conversation":
        """Return the typed twin: every clip replaced by what is said in it.

        Raises ValueError if a clip has no `text`.
        """
        for clip in self.clips:
            if clip.text is None:
                raise ValueError(
                    f"conversation '{self.id}': clip {clip.audio} has no 'text', so there "
                    f"is no typed twin; add what is said in the clip"
                )
        return self.with_clips([Text(clip.text or "") for clip in self.clips])

    def with_clips(self, parts: Iterable[Part]) -> "Conversation":
        """Return the conversation with another clip, or a text, in the place of each clip."""
        left = iter(parts)
        turns = tuple(
            Turn(t.role, tuple(next(left) if isinstance(p, Audio) else p for p in t.parts))
            for t in self.messages
        )
        return Conversation(self.id, turns, self.task, self.lang, self.meta)

    def captioned(self, captions: Iterable[str]) -> "Conversation":
        """Return the conversation with a caption below each clip, where there is one."""
        left = iter(captions)
        turns = []
        for turn in self.messages:
            parts: list[Part] = []
            for number, part in enumerate(turn.parts, start=1):
                parts.append(part)
                if isinstance(part, Audio) and (words := next(left, "")):
                    parts.append(Text(f"\n{words}" + "\n" * (number < len(turn.parts))))
            turns.append(Turn(turn.role, tuple(parts)))
        return Conversation(self.id, tuple(turns), self.task, self.lang, self.meta)


def user(*parts: str | Audio) -> Turn:
    """Build a user turn from strings and clips."""
    return Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(text: str) -> Turn:
    """Build an assistant turn."""
    return Turn("assistant", (Text(text),))


def system(text: str) -> Turn:
    """Build a system turn."""
    return Turn("system", (Text(text),))


def parse_line(line: str, where: str) -> Conversation:
    """Read a conversation from a line of JSON; `where` (file:line) opens every error.

    Raises ValueError if the line is no JSON or no conversation.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); "
            f"each line must be one JSON object with 'id' and 'messages'"
        ) from None
    return from_json(record, where)


def from_json(record: object, where: str) -> Conversation:
    """Read a conversation from parsed JSON; `where` opens every error. Raises ValueError."""
    known = {"id", "messages", "task", "lang", "meta"}
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a conversation must be a JSON object, not {_kind(record)}")
    if unknown := sorted(record.keys() - known):
        raise ValueError(
            f"{where}: unknown key '{unknown[0]}'; a conversation has {', '.join(sorted(known))} "
            f"(put anything else under 'meta')"
        )
    if not isinstance(record.get("id"), str) or not record["id"]:
        raise ValueError(f"{where}: 'id' must be a non-empty string, not {_kind(record.get('id'))}")
    where = f"{where}: conversation '{record['id']}'"
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}: 'messages' must be a non-empty list, not {_kind(messages)}")
    task, lang, meta = record.get("task", "text"), record.get("lang"), record.get("meta", {})
    if not isinstance(task, str) or not task:
        raise ValueError(f"{where}: 'task' must be a word such as 'asr', not {_kind(task)}")
    if not isinstance(lang, str | None):
        raise ValueError(f"{where}: 'lang' must be a language tag such as 'en', not {_kind(lang)}")
    if not isinstance(meta, dict):
        raise ValueError(f"{where}: 'meta' must be a JSON object, not {_kind(meta)}")
    turns = tuple(_turn(turn, f"{where}: message {n}") for n, turn in enumerate(messages))
    return Conversation(record["id"], turns, task, lang, meta)


def to_json(conversation: Conversation) -> dict[str, object]:
    """Return the JSON object that `from_json` reads back to an equal conversation."""
    record: dict[str, object] = {"id": conversation.id, "task": conversation.task}
    if conversation.lang is not None:
        record["lang"] = conversation.lang
    record["messages"] = [_turn_to_json(turn) for turn in conversation.messages]
    if conversation.meta:
        record["meta"] = dict(conversation.meta)
    return record


def to_line(conversation: Conversation) -> str:
    """Return the conversation as one line of JSON, without the newline."""
    return json.dumps(to_json(conversation), ensure_ascii=False)


def _turn(turn: object, where: str) -> Turn:
    if not isinstance(turn, dict) or turn.keys() != {"role", "content"}:
        raise ValueError(f"{where}: a message must be an object with 'role' and 'content' only")
    role, content = turn["role"], turn["content"]
    if role not in get_args(Role):
        raise ValueError(f"{where}: role {role!r} is not one of {', '.join(get_args(Role))}")
    if isinstance(content, str):
        return Turn(role, (Text(content),))
    if not isinstance(content, list) or not content:
        raise ValueError(f"{where}: 'content' must be a string or a non-empty list of parts")
    parts = tuple(_part(part, f"{where}, part {n}") for n, part in enumerate(content))
    if role != "user" and any(isinstance(part, Audio) for part in parts):
        raise ValueError(f"{where}: audio in a {role} turn has no slot; only user turns hold audio")
    return Turn(role, parts)


def _part(part: object, where: str) -> Part:
    if not isinstance(part, dict):
        raise ValueError(f"{where}: a part must be an object, not {_kind(part)}")
    match part.get("type"):
        case "text":
            if part.keys() != {"type", "text"} or not isinstance(part["text"], str):
                raise ValueError(
                    f"{where}: a text part must have 'text', a string, and no other key"
                )
            return Text(part["text"])
        case "audio":
            return _audio(part, where)
        case other:
            raise ValueError(f"{where}: part type {other!r} is not one of text, audio")


def _audio(part: dict[str, object], where: str) -> Audio:
    known = {"type", "audio", "start", "duration", "text"}
    if unknown := sorted(part.keys() - known):
        raise ValueError(f"{where}: unknown key '{unknown[0]}'; an audio part has {sorted(known)}")
    path, text = part.get("audio"), part.get("text")
    if not isinstance(path, str) or not path:
        raise ValueError(f"{where}: 'audio' must be the path of a file, not {_kind(path)}")
    if not isinstance(text, str | None):
        raise ValueError(f"{where}: 'text' must be what is said in the clip, not {_kind(text)}")
    start = _seconds(part.get("start", 0.0))
    if start is None:
        raise ValueError(f"{where}: 'start' is {part['start']!r}; it must be seconds, 0 or more")
    duration = _seconds(part.get("duration"))
    if part.get("duration") is not None and not duration:
        raise ValueError(
            f"{where}: 'duration' is {part['duration']!r}; it must be seconds, more than 0"
        )
    return Audio(path, start, duration, text)


def _seconds(value: object) -> float | None:
    """Return a finite, non-negative number as a float, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < float("inf") else None


def _turn_to_json(turn: Turn) -> dict[str, object]:
    if len(turn.parts) == 1 and isinstance(turn.parts[0], Text):
        return {"role": turn.role, "content": turn.parts[0].text}
    return {"role": turn.role, "content": list(_parts_to_json(turn.parts))}


def _parts_to_json(parts: tuple[Part, ...]) -> Iterator[dict[str, object]]:
    for part in parts:
        if isinstance(part, Text):
            yield {"type": "text", "text": part.text}
            continue
        record: dict[str, object] = {"type": "audio", "audio": part.audio}
        if part.start:
            record["start"] = part.start
        if part.duration is not None:
            record["duration"] = part.duration
        if part.text is not None:
            record["text"] = part.text
        yield record


def _kind(value: object) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
