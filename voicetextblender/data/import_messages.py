"""Chat files with audio: OpenAI `messages`, ShareGPT `conversations`, LLaMA-Factory, ms-swift.

Clips are content parts, or files in `audios` with `<audio>` in the text where they belong.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from voicetextblender.chat import Audio, Conversation, Part, Role, Text, Turn
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    Json,
    UnusableEntry,
    find_audio,
    json_lines,
    language_code,
    people,
    report,
    word,
)

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_MARK = "<audio>"


def import_messages(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a JSON list or JSON lines of conversations to `text`, `sqa` and `mixed.jsonl`.

    `sqa` has audio in every user turn and `mixed` in some; a `task` of the entry's own wins. Audio
    inside the file is written to `clips` as it is. Raises ValueError if it is no such file.
    """
    if not source.is_file():
        raise ValueError(
            f"{source}: there is no such file; name a .json or .jsonl of conversations"
        )
    with Conversations(out, given) as conversations:
        for number, entry in enumerate(entries_of(source, conversations), start=1):
            try:
                conversation = _conversation(entry, number, source, out, given)
                conversations.add_conversation(conversation, conversation.task)
            except UnusableEntry as reason:
                conversations.drop(str(reason))
                for written in (out / "clips").glob(f"{number:06}-*"):
                    written.unlink()
        return report(source, conversations)


def entries_of(source: Path, conversations: Conversations) -> Iterator[Json]:
    """Yield the objects of a JSON list or of JSON lines; count what is none."""
    with source.open("rb") as file:
        is_list = file.read(200).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if not is_list:
        yield from json_lines(source, conversations)
        return
    try:
        entries = json.loads(source.read_text("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: is not JSON ({error}); export it again") from None
    for entry in entries:
        if isinstance(entry, dict):
            yield entry
        else:
            conversations.drop("not a JSON object")


def _conversation(entry: Json, number: int, source: Path, out: Path, given: Given) -> Conversation:
    messages = entry.get("messages") or entry.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise UnusableEntry("no 'messages' or 'conversations'")
    clips = _Clips(source.parent, out.absolute() / f"clips/{number:06}")
    turns = [_turn(message, clips) for message in messages]
    if (instruction := word(entry.get("system"))) and turns[0].role != "system":
        turns.insert(0, Turn("system", (Text(instruction),)))
    if all(turn.role != "assistant" for turn in turns):
        raise UnusableEntry("no assistant turn")
    turns = _with_audios(turns, _listed(entry, clips))
    if any(turn.clips for turn in turns if turn.role != "user"):
        raise UnusableEntry("audio outside user turns")
    asked = [bool(turn.clips) for turn in turns if turn.role == "user"]
    task = word(entry.get("task")) or (
        "text" if not any(asked) else "sqa" if all(asked) else "mixed"
    )
    if not task.replace("-", "").replace("_", "").isalnum():
        raise UnusableEntry("'task' is not a word")
    lang = language_code(word(entry.get("lang")) or given.lang or "")
    meta = ({"license": given.license} if given.license else {}) | people(entry)
    id = word(entry.get("id")) or f"{source.stem}-{number}"
    return Conversation(id, tuple(turns), task, lang, meta)


def _turn(message: object, clips: "_Clips") -> Turn:
    if not isinstance(message, dict):
        raise UnusableEntry("a message is not a JSON object")
    name = word(message.get("role", message.get("from"))) or "none"
    content = message.get("content", message.get("value"))
    if name not in _ROLES:
        raise UnusableEntry(f"role '{name}'")
    if isinstance(content, str):
        return Turn(_ROLES[name], (Text(content),))
    if not isinstance(content, list) or not content:
        raise UnusableEntry("a message without content")
    return Turn(_ROLES[name], tuple(clips.part(part) for part in content))


def _with_audios(turns: Sequence[Turn], audios: Sequence[Audio]) -> list[Turn]:
    """Put the listed clips where the marks are; those without a mark open the first user turn."""
    if not audios:
        return list(turns)
    if all(turn.role != "user" for turn in turns):
        raise UnusableEntry("no user turn for the audio")
    texts = [p.text for t in turns for p in t.parts if isinstance(p, Text) and t.role == "user"]
    num_marks = sum(text.count(_MARK) for text in texts)
    if num_marks > len(audios):
        raise UnusableEntry("more <audio> than audios")
    num_unmarked = len(audios) - num_marks
    rest = iter(audios[num_unmarked:])
    filled: list[Turn] = []
    opening = audios[:num_unmarked]
    for turn in turns:
        if turn.role != "user":
            filled.append(turn)
            continue
        parts: list[Part] = list(opening)
        opening = ()
        for part in turn.parts:
            parts += _split(part.text, rest) if isinstance(part, Text) else [part]
        filled.append(Turn("user", tuple(parts)))
    return filled


def _split(text: str, audios: Iterator[Audio]) -> list[Part]:
    """Replace each mark in a text by the next clip; what is between marks stays as it is."""
    first, *others = text.split(_MARK)
    parts: list[Part] = [Text(first)] if first.strip() else []
    for other in others:
        parts.append(next(audios))
        if other.strip():
            parts.append(Text(other))
    return parts


def _listed(entry: Json, clips: "_Clips") -> list[Audio]:
    """Return the clips of `audios` or `audio`: one, or a list."""
    listed = entry.get("audios") or entry.get("audio") or []
    return [clips.named(clip) for clip in (listed if isinstance(listed, list) else [listed])]


class _Clips:
    """The clips of one entry: files that it names, or bytes in it that become files."""

    def __init__(self, folder: Path, stem: Path) -> None:
        self.folder = folder
        self.stem = stem
        self.num_written = 0

    def part(self, part: object) -> Part:
        """Read a content part of OpenAI, of vLLM (`audio_url`), or of transformers."""
        match part:
            case {"type": "text" | "input_text", "text": str(text)}:
                return Text(text)
            case {"type": "input_audio", "input_audio": {"data": str(data), **other}}:
                return self._written(data, word(other.get("format")) or "wav")
            case {"type": "audio_url", "audio_url": {"url": str(url)}}:
                return self.named(url)
            case {"type": "audio", **other}:
                names = (other.get(key) for key in ("audio", "audio_url", "url", "path"))
                clip = self.named(next((name for name in names if name), None))
                return Audio(clip.audio, clip.start, clip.duration, word(other.get("text")))
            case {"type": str(kind)}:
                raise UnusableEntry(f"content of type '{kind}'")
        raise UnusableEntry("content without a type")

    def named(self, name: object) -> Audio:
        """Return the clip by its path, or by a `file:` or `data:` address."""
        if not isinstance(name, str) or not name:
            raise UnusableEntry("no audio")
        address = urlparse(name)
        match address.scheme:
            case "http" | "https":
                raise UnusableEntry("audio is at a web address")
            case "data":
                kind, _, data = address.path.partition(";base64,")
                return self._written(data, kind.rpartition("/")[2].removeprefix("x-"))
            case "file":
                return Audio(find_audio(unquote(address.path), self.folder))
        return Audio(find_audio(name, self.folder))

    def _written(self, data: str, format: str) -> Audio:
        try:
            decoded = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise UnusableEntry("audio is not base64") from None
        if not format.isalnum():
            raise UnusableEntry(f"audio format '{format}'")
        path = self.stem.with_name(f"{self.stem.name}-{self.num_written}.{format}")
        self.num_written += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(decoded)
        return Audio(str(path))
