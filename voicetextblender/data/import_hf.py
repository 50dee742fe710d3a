"""Hugging Face datasets on disk: `save_to_disk` folders, and Parquet, with audio in the rows."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from voicetextblender.chat import Audio
from voicetextblender.data.importing import (
    NOTHING_GIVEN,
    Conversations,
    Given,
    ImportReport,
    Json,
    UnusableEntry,
    find_audio,
    report,
    text_column,
    utterance_of_row,
    word,
)

if TYPE_CHECKING:
    import pyarrow

_ROWS = 32  # read at a time: the audio of all of them is held
_FILES_PER_FOLDER = 1000
_ID_COLUMNS = ("id", "segment_id", "audio_id")
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3"}


def import_hf(source: Path, out: Path, given: Given = NOTHING_GIVEN) -> ImportReport:
    """Import a dataset, each split to a folder of its name; audio in rows is written to `clips`.

    A column `translation` makes AST conversations too. Raises ValueError if the source is no
    dataset, a column for audio or transcripts is missing, or there is nothing.
    """
    splits = _splits(source)
    return report(source, *(_split(files, out / name, given) for name, files in splits.items()))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: what its columns say, and its audio, which may be bytes."""

    number: int
    """In all files, from 1."""
    said: Json
    audio: object
    file: Path
    license: Mapping[str, str]

    def clip(self, out: Path) -> Audio:
        """Return the file that the row names, or its bytes as a file in `out/clips`.

        Raises UnusableEntry.
        """
        value = {"path": self.audio} if isinstance(self.audio, str) else self.audio
        if not isinstance(value, dict) or not (value.get("bytes") or value.get("path")):
            raise UnusableEntry("no audio")
        data, name = value.get("bytes"), value.get("path")
        if not isinstance(data, bytes):
            return Audio(find_audio(str(name), self.file.parent))
        suffix = Path(name).suffix if name else ""
        suffix = suffix or next(
            (s for magic, s in _MAGIC.items() if data.startswith(magic)), ".bin"
        )
        folder = out.absolute() / f"clips/{self.number // _FILES_PER_FOLDER:03}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.number:06}{suffix}"
        path.write_bytes(data)
        return Audio(str(path))


def read_rows(files: Iterable[Path]) -> Iterator[Row]:
    """Read Parquet and Arrow files, with names for the numbers that stand for them.

    Raises ValueError if pyarrow is missing, or a file is none or has no column of audio.
    """
    number = 0
    for path in files:
        schema, batches = _open(path)
        audio, classes, license = _audio_column(schema, path), _classes(schema), _license(path)
        for row in chain.from_iterable(batches):
            number += 1
            named = row | {
                column: names[value]
                for column, names in classes.items()
                if isinstance(value := row.get(column), int) and 0 <= value < len(names)
            }
            yield Row(number, named, row[audio], path, license)


def _splits(source: Path) -> dict[str, list[Path]]:
    """Return the files of every split by its name, which is '' where there is but one."""
    if source.is_file():
        return {"": [source]}
    if (source / "dataset_dict.json").is_file():
        names = json.loads((source / "dataset_dict.json").read_text("utf-8"))["splits"]
        return {name: _saved(source / name) for name in names}
    if (source / "state.json").is_file():
        return {"": _saved(source)}
    splits: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.parquet")):
        stem = re.sub(r"-\d+-of-\d+$|^\d+$", "", path.stem)
        folders = [name for name in path.relative_to(source).parent.parts if name != "data"]
        splits.setdefault("/".join([*folders, stem]), []).append(path)
    if not splits:
        raise ValueError(
            f"{source}: is no dataset; name a folder that 'save_to_disk' wrote, "
            f"or Parquet files or a folder of them"
        )
    return splits


def _saved(folder: Path) -> list[Path]:
    state = json.loads((folder / "state.json").read_text("utf-8"))
    return [folder / file["filename"] for file in state["_data_files"]]


def _split(files: Sequence[Path], out: Path, given: Given) -> Conversations:
    with Conversations(out, given) as conversations:
        for row in read_rows(files):
            text = text_column(row.said, str(row.file), given)
            with conversations.counting():
                _add(conversations, row, text)
        return conversations


def _add(conversations: Conversations, row: Row, text: str) -> None:
    """Add a row; of one that cannot be used, no file stays behind."""
    ids = (word(row.said.get(column)) for column in _ID_COLUMNS)
    id = next((id for id in ids if id), f"row-{row.number}")
    clip = row.clip(conversations.out)
    heard = Audio(clip.audio, text=word(row.said[text]))
    try:
        conversations.add(utterance_of_row(row.said, id, heard, row.license))
    except UnusableEntry:
        if Path(clip.audio).is_relative_to(conversations.out.absolute() / "clips"):
            Path(clip.audio).unlink()
        raise


def _open(path: Path) -> "tuple[pyarrow.Schema, Iterator[list[dict[str, object]]]]":
    """Open a Parquet file, or an Arrow stream as `datasets` writes it, read piece by piece."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: the 'pyarrow' package, which reads it, is not installed; "
            f"run: pip install 'voicetextblender[data]'"
        ) from None
    try:
        if path.suffix == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            batches = file.iter_batches(batch_size=_ROWS)
            return file.schema_arrow, (batch.to_pylist() for batch in batches)
        stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
    except (pyarrow.ArrowInvalid, FileNotFoundError) as error:
        raise ValueError(f"{path}: is no Parquet or Arrow file ({error}); copy it again") from None
    pieces = (
        batch.slice(start, _ROWS).to_pylist()
        for batch in stream
        for start in range(0, batch.num_rows, _ROWS)
    )
    return stream.schema, pieces


def _audio_column(schema: "pyarrow.Schema", path: Path) -> str:
    """Return the column that is audio for `datasets`, or has the form: bytes and path."""
    import pyarrow

    features = _features(schema)
    for field in schema:
        children = (
            {child.name for child in field.type} if pyarrow.types.is_struct(field.type) else set()
        )
        if features.get(field.name, {}).get("_type") == "Audio" or "bytes" in children:
            return field.name
    raise ValueError(
        f"{path}: no column has audio, as bytes or path, among {', '.join(schema.names)}; "
        f"save the dataset with its audio column"
    )


def _features(schema: "pyarrow.Schema") -> dict[str, dict[str, object]]:
    """Return what `datasets` wrote about the columns, if it did."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return {name: of for name, of in features.items() if isinstance(of, dict)}


def _classes(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the names that the numbers of a column stand for, by column."""
    labels = {name: feature.get("names") for name, feature in _features(schema).items()}
    return {name: names for name, names in labels.items() if isinstance(names, list)}


def _license(path: Path) -> dict[str, str]:
    info = path.parent / "dataset_info.json"
    stated = json.loads(info.read_text("utf-8")).get("license") if info.is_file() else None
    return {"license": stated} if stated else {}
