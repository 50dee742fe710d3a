"""What all importers share: an utterance as a corpus has it, and the conversations made of it.

Audio stays where it is: a conversation refers to the file, the tar member or the slice. What one
kind of source looks like is the matter of that importer's file; this one knows nothing of it.
"""

import gzip
import json
import math
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO, TypeVar

from voicetextblender.audio import probe_duration
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.text import LANGUAGES, transcribe_instruction, translate_instruction

Entry = TypeVar("Entry")
Json = Mapping[str, object]

# What the corpora call the transcript; where there are two, the one with punctuation is first.
TEXT_COLUMNS = (
    "raw_transcription",
    "raw_text",
    "sentence",
    "text",
    "transcription",
    "transcript",
    "normalized_text",
)
_LANG_COLUMNS = ("lang", "lang_id", "locale", "language", "source_lang")
_META_COLUMNS = {
    "speaker": ("speaker", "speaker_id", "client_id"),
    "gender": ("gender", "sex"),
    "accent": ("accent", "accents"),
    "age": ("age",),
    "license": ("license",),
}
_OTHER_CODES = {"cmn": "zh", "nb": "no"}  # as FLEURS has them


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an importer kept, and what it left out."""

    kept: int
    """Clips, or, where the source has conversations, those."""
    hours: float
    dropped: Mapping[str, int]
    """The number of entries left out, by reason."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of a corpus; where the corpus says it too, the corpus is believed."""

    lang: str | None = None
    target: str | None = None
    """The language of the translations."""
    license: str | None = None
    text_column: str | None = None
    """The column of the transcripts, if it is another than the usual one."""


NOTHING_GIVEN = Given()


class UnusableEntry(ValueError):
    """An entry must be left out, with the reason under which it is counted."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One entry of a corpus: a clip with its transcript, its translation, or both."""

    id: str
    clip: Audio
    """Its path is absolute, its `text` is the transcript; a duration of None is looked up."""
    lang: str | None = None
    """In any spelling: `en`, `en_US`, `English`."""
    translation: str | None = None
    target: str | None = None
    meta: Json = field(default_factory=dict)


class Conversations:
    """The JSONL files of a folder while they are written, and the count of what is left out.

    To be used in a `with` statement; if that ends in an error, no file appears in the folder.
    """

    def __init__(self, out: Path, given: Given = NOTHING_GIVEN) -> None:
        self.out = out
        self.given = given
        self.kept = 0
        self.duration_s = 0.0
        self.dropped: Counter[str] = Counter()
        self._files: dict[Path, TextIO] = {}
        self._ids: Counter[str] = Counter()

    def __enter__(self) -> "Conversations":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for path, file in self._files.items():
            file.close()
            if error is None:
                Path(file.name).replace(path)
            else:
                Path(file.name).unlink()

    def add_each(self, entries: Iterable[Entry], read: Callable[[Entry], Utterance]) -> None:
        """Add what `read` makes of the entries; where it raises UnusableEntry, count the reason."""
        for entry in entries:
            with self.counting():
                self.add(read(entry))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the reason if an entry that is added within raises UnusableEntry."""
        try:
            yield
        except UnusableEntry as reason:
            self.drop(str(reason))

    def add(self, utterance: Utterance) -> None:
        """Write the ASR conversation of an utterance, the AST one, or both.

        Raises UnusableEntry, or ValueError if nobody says which language it is.
        """
        lang = self._code(utterance.lang, self.given.lang, "--lang")
        clip = self.refer(utterance.clip)
        if not clip.text and not utterance.translation:
            raise UnusableEntry("no transcript")
        meta = dict(utterance.meta)
        if self.given.license:
            meta.setdefault("license", self.given.license)
        id = self.unique(utterance.id)
        if utterance.translation:
            target = self._code(utterance.target, self.given.target, "--target")
            turns = (
                user(translate_instruction(lang, target), clip),
                assistant(utterance.translation),
            )
            ast_meta = {**meta, "target_lang": target}
            ast = Conversation(f"{id}-{target}", turns, "ast", lang, ast_meta)
            self._write(f"ast-{lang}-{target}", ast)
        if clip.text:
            turns = (user(transcribe_instruction(lang), clip), assistant(clip.text))
            self._write(f"asr-{lang}", Conversation(id, turns, "asr", lang, meta))
        self.kept += 1
        self.duration_s += clip.duration or 0.0

    def add_conversation(self, conversation: Conversation, name: str) -> None:
        """Write a conversation, whose clips' paths are absolute, to `name`.jsonl.

        Raises UnusableEntry if a clip cannot be read.
        """
        referring = conversation.with_clips([self.refer(clip) for clip in conversation.clips])
        referring = replace(referring, id=self.unique(conversation.id))
        self._write(name, referring)
        self.kept += 1
        self.duration_s += sum(clip.duration or 0.0 for clip in referring.clips)

    def drop(self, reason: str) -> None:
        """Count an entry that is left out."""
        self.dropped[reason] += 1

    def unique(self, id: str) -> str:
        """Return the id, with a number from its second use on."""
        self._ids[id] += 1
        return id if self._ids[id] == 1 else self.unique(f"{id}-{self._ids[id]}")

    def refer(self, clip: Audio) -> Audio:
        """Return the clip with its duration and with a path relative to the folder.

        The path stays absolute if only the root is above both. Raises UnusableEntry if the clip
        cannot be read.
        """
        duration = clip.duration
        if duration is None:
            try:
                duration = round(probe_duration(clip.audio) - clip.start, 3)
            except FileNotFoundError:
                raise UnusableEntry("no such audio file") from None
            except (ValueError, OSError):
                raise UnusableEntry("audio cannot be read") from None
        elif not Path(_file_of(clip.audio)).is_file():
            raise UnusableEntry("no such audio file")
        if duration <= 0:
            raise UnusableEntry("clip without length")
        folder = Path(os.path.realpath(self.out))
        path = Path(clip.audio)
        if path.parts[:2] == folder.parts[:2]:
            path = Path(os.path.relpath(path, folder))
        text = " ".join((clip.text or "").split()) or None
        return Audio(path.as_posix(), clip.start, duration, text)

    def _code(self, tag: str | None, given: str | None, option: str) -> str:
        """Return the code of a language by what the corpus calls it, or by what the user says."""
        if not tag and not given:
            raise ValueError(
                f"the source does not say which language this is; say it with {option}, "
                f"such as {option} en"
            )
        code = language_code(tag or given or "")
        if code is None and not tag:
            raise ValueError(
                f"{option} '{given}' is no language known here; use one of {', '.join(LANGUAGES)}"
            )
        if code is None:
            raise UnusableEntry(f"language '{tag}' is not known here")
        return code

    def _write(self, name: str, conversation: Conversation) -> None:
        path = self.out / f"{name}.jsonl"
        if path not in self._files:
            self.out.mkdir(parents=True, exist_ok=True)
            self._files[path] = path.with_suffix(".jsonl.part").open("w", encoding="utf-8")
        self._files[path].write(to_line(conversation) + "\n")


def report(source: Path, *written: Conversations) -> ImportReport:
    """Add up what was written. Raises ValueError if nothing was."""
    dropped: Counter[str] = Counter()
    for conversations in written:
        dropped.update(conversations.dropped)
    kept = sum(conversations.kept for conversations in written)
    if not kept and not dropped:
        raise ValueError(f"{source}: holds no entries; name a source with recordings in it")
    if not kept:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in dropped.most_common())
        raise ValueError(
            f"{source}: none of {dropped.total()} entries can be used ({reasons}); correct the "
            f"source, or see 'vtb data import --help' for the kind that fits it"
        )
    hours = sum(conversations.duration_s for conversations in written) / 3600
    return ImportReport(kept, hours, dict(sorted(dropped.items())))


def language_code(tag: str) -> str | None:
    """Return the ISO 639-1 code for `en`, `en_US`, `English`; None if text.py has no such name."""
    names = {name.lower(): code for code, name in LANGUAGES.items()}
    word = re.split("[-_]", tag.strip().lower())[0]
    code = names.get(word, _OTHER_CODES.get(word, word))
    return code if code in LANGUAGES else None


def text_column(columns: Collection[str], where: str, given: Given) -> str:
    """Return the column that holds the transcripts. Raises ValueError if there is none."""
    wanted = (given.text_column,) if given.text_column else TEXT_COLUMNS
    for column in wanted:
        if column in columns:
            return column
    missing = "' or '".join(wanted)
    raise ValueError(
        f"{where}: no transcripts, for there is no column '{missing}' among "
        f"{', '.join(columns)}; name the column with --text-column"
    )


def utterance_of_row(row: Json, id: str, clip: Audio, meta: Json | None = None) -> Utterance:
    """Make an utterance from a table's row by the usual names of columns."""
    tags = [tag for column in _LANG_COLUMNS if (tag := word(row.get(column)))]
    known = [tag for tag in tags if language_code(tag)]
    return Utterance(
        id,
        clip,
        next(iter(known or tags), None),
        word(row.get("translation")),
        word(row.get("target_lang")),
        {**(meta or {}), **people(row)},
    )


def people(row: Json) -> dict[str, object]:
    """Return who speaks (speaker, gender, accent, age) and the licence, as far as stated."""
    stated = {
        name: next((w for column in columns if (w := word(row.get(column)))), None)
        for name, columns in _META_COLUMNS.items()
    }
    return {name: value for name, value in stated.items() if value is not None}


def word(value: object) -> str | None:
    """Return a string or a number as a stripped string; None for one that is empty or no such."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def seconds(value: object, name: str) -> float:
    """Return a time of 0 or more. Raises UnusableEntry."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UnusableEntry(f"'{name}' is not a number of seconds")
    return float(value)


def json_lines(path: Path, conversations: Conversations) -> Iterator[Json]:
    """Yield the objects of a JSONL file, which may be gzipped; count the lines that are none."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                conversations.drop("not JSON")
                continue
            if isinstance(entry, dict):
                yield entry
            else:
                conversations.drop("not a JSON object")


def find_audio(path: str, folder: Path) -> str:
    """Return the absolute path of a file that a corpus in `folder` names.

    A relative path counts from the folder, from one above it, or from the current one. Raises
    UnusableEntry if there is no such file.
    """
    for base in (folder.absolute(), *folder.absolute().parents, Path.cwd()):
        if (base / path).is_file():
            return os.path.abspath(base / path)
    raise UnusableEntry("no such audio file")


def tar_members(path: Path) -> list[str]:
    """Return the names of a tar's files. Raises ValueError if it is no uncompressed tar."""
    try:
        with tarfile.open(path, "r:") as tar:
            return [member.name.removeprefix("./") for member in tar if member.isreg()]
    except tarfile.TarError as error:
        raise ValueError(
            f"{path}: is not an uncompressed tar ({error}); clips are read at random, "
            f"so unpack it with gunzip first"
        ) from None


def _file_of(audio: str) -> str:
    """Return the file that a clip's path is in, which is the tar for a tar's member."""
    archive, is_member, _ = audio.partition(".tar#")
    return f"{archive}.tar" if is_member else audio
