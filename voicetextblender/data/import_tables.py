"""Tables beside folders of clips: Common Voice (and CoVoST 2) TSV, LJSpeech metadata.csv."""

import csv
import re
from pathlib import Path

from voicetextblender.chat import Audio
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    Json,
    UnusableEntry,
    Utterance,
    find_audio,
    report,
    text_column,
    utterance_of_row,
    word,
)

_SPLITS = ("train", "dev", "test")  # the other tables repeat them, or were not confirmed
_LJSPEECH = {"speaker": "Linda Johnson", "license": "public domain"}


def import_commonvoice(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a table, or train, dev and test.tsv of a language's folder to folders of these names.

    A column `translation`, as CoVoST 2 adds it, makes AST conversations too. Raises ValueError if
    there is no table, no column for the clip or for the transcript, or nothing to import.
    """
    tables = [path for split in _SPLITS if (path := source / f"{split}.tsv").is_file()]
    if source.is_file():
        return report(source, _commonvoice(source, out, given))
    if not tables:
        raise ValueError(
            f"{source}: no train.tsv, dev.tsv or test.tsv here; name a table, or the folder of "
            f"one language"
        )
    return report(source, *(_commonvoice(table, out / table.stem, given) for table in tables))


def import_ljspeech(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import `metadata.csv`, with the clips in `wavs`: id|text, or id|text|text in words.

    Raises ValueError if there is no such table or nothing to import.
    """
    table = source / "metadata.csv" if source.is_dir() else source
    if not table.is_file():
        raise ValueError(f"{table}: there is no such file; name the folder with metadata.csv")

    def utterance(line: str) -> Utterance:
        id, *texts = line.split("|")
        if not texts:
            raise UnusableEntry("line without '|'")
        name = id if Path(id).suffix else f"{id}.wav"
        audio = find_audio(f"wavs/{name}", table.parent)
        is_original = re.fullmatch(r"LJ\d{3}-\d{4}", id)
        lang, meta = ("en", _LJSPEECH) if is_original else (None, {})
        return Utterance(Path(id).stem, Audio(audio, text=texts[-1] or texts[0]), lang, meta=meta)

    with Conversations(out, given) as conversations:
        lines = table.read_text("utf-8-sig").splitlines()
        conversations.add_each((line for line in lines if line.strip()), utterance)
        return report(source, conversations)


def _commonvoice(table: Path, out: Path, given: Given) -> Conversations:
    with (
        table.open(encoding="utf-8-sig", newline="") as file,
        Conversations(out, given) as conversations,
    ):
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = rows.fieldnames or []
        if not columns:
            raise ValueError(f"{table}: is empty; name a table with a line of column names")
        if "path" not in columns:
            raise ValueError(
                f"{table}: no column 'path' for the clips, but {', '.join(columns)}; "
                f"name a table of Common Voice"
            )
        text = text_column(columns, str(table), given)
        # What has a locale is Common Voice's own, and free; translations are not.
        meta = {"license": "CC0-1.0"} if "locale" in columns else {}

        def utterance(row: Json) -> Utterance:
            name = word(row.get("path"))
            if name is None:
                raise UnusableEntry("no audio")
            name = name if Path(name).suffix else f"{name}.mp3"
            clips = table.parent / "clips"
            audio = find_audio(name, clips if clips.is_dir() else table.parent)
            return utterance_of_row(row, Path(name).stem, Audio(audio, text=word(row[text])), meta)

        conversations.add_each(rows, utterance)
        return conversations
