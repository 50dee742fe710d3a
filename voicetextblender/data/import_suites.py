"""Public suites of spoken questions, by their own files: VoiceBench and AIR-Bench.

    voicebench   Parquet, JSON or JSON lines with `prompt`, `audio` and `reference` or `output`
    airbench     a list of `path`, `question`, `answer_gt` and, for multiple choice, `choice_a`…

The items are written for `vtb eval`: the last turn is the reference, `meta.choices` are the
choices. An item of which nobody wrote down an answer is left out, for it cannot be scored.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.import_hf import read_rows
from voicetextblender.data.import_messages import entries_of
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    Json,
    UnusableEntry,
    find_audio,
    report,
    word,
)

_KEPT = ("region", "accent", "gender", "task_name", "dataset_name", "instruction_id_list", "kwargs")


def import_voicebench(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a subset's file to a set of its name; the whole question is spoken."""
    return _import(source, out, given, _voicebench)


def import_airbench(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a metadata file to a set of its name; the question is typed, about a recording."""
    return _import(source, out, given, _airbench)


def _import(
    source: Path, out: Path, given: Given, read: Callable[[Json, str, Path], Conversation]
) -> ImportReport:
    if not source.is_file():
        raise ValueError(
            f"{source}: there is no such file; name a .json, .jsonl or .parquet of the suite"
        )
    with Conversations(out, given) as conversations:
        for number, entry in enumerate(_entries(source, conversations), start=1):
            with conversations.counting():
                item = read(entry, f"{source.stem}-{number:05d}", source.parent)
                conversations.add_conversation(item, source.stem)
        return report(source, conversations)


def _entries(source: Path, conversations: Conversations) -> Iterator[Json]:
    if source.suffix != ".parquet":
        yield from entries_of(source, conversations)
        return
    for row in read_rows([source]):
        with conversations.counting():
            yield {**row.said, "audio": row.clip(conversations.out).audio}


def _voicebench(entry: Json, id: str, folder: Path) -> Conversation:
    asked, answer = word(entry.get("prompt")), _answer(entry, "reference", "output")
    audio = entry.get("audio")
    path = word(audio.get("path") if isinstance(audio, dict) else audio)
    if path is None:
        raise UnusableEntry("no path of a recording; save the audio beside the file")
    clip = Audio(find_audio(path, folder), text=asked)
    return Conversation(id, (user(clip), assistant(answer)), "sqa", "en", _meta(entry))


def _airbench(entry: Json, id: str, folder: Path) -> Conversation:
    asked, path = word(entry.get("question")), word(entry.get("path"))
    if asked is None or path is None:
        raise UnusableEntry("no 'question' or no 'path'")
    answer = _answer(entry, "answer_gt")
    options = [choice for letter in "abcd" if (choice := word(entry.get(f"choice_{letter}")))]
    meta = _meta(entry)
    if options:
        if answer not in options:
            raise UnusableEntry("the answer is none of the choices")
        asked, meta = f"{asked}\nChoose one: {', '.join(options)}.", meta | {"choices": options}
    turns = (user(f"{asked}\n", Audio(find_audio(path, folder))), assistant(answer))
    return Conversation(id, turns, "sqa", None, meta)


def _answer(entry: Json, *names: str) -> str:
    for name in names:
        if answer := word(entry.get(name)):
            return answer
    raise UnusableEntry("no reference answer")


def _meta(entry: Json) -> dict[str, object]:
    return {name: entry[name] for name in _KEPT if entry.get(name)}
