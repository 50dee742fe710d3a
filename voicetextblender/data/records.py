"""Conversations on disk, indexed and not loaded: JSON lines, or rows of Parquet.

A Parquet file has a column `conversation` of the same JSON. Wherever it stands, a clip's path is
relative to the file's folder.
"""

import glob
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from voicetextblender.audio import load
from voicetextblender.cache import index_of
from voicetextblender.chat import Conversation, parse_line, to_line
from voicetextblender.parquet import parquet_rows, parquet_value

Label = Literal["file", "lang", "task"]
COLUMN = "conversation"
_LABELS = {"lang": "", "task": "text"}
"""What a record may say of itself, and what it means if it does not."""
_BLOCK = 16 << 20  # bytes read at a time
_SHORTEST = 64  # bytes: a shorter line may be blank, so it is looked at


class Records:
    """A source's conversations, by number; each is read from its file when it is asked for."""

    def __init__(self, pattern: str) -> None:
        """Index the file, or the files of a glob in the order of their names.

        Raises ValueError if there is none, or if they hold no conversation.
        """
        self.pattern = pattern
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        self.files = [path for path in map(Path, found) if path.is_file()]
        if not self.files:
            raise ValueError(f"{pattern}: no such file; name a JSONL file of conversations")
        self._ends = list(accumulate(map(_count, self.files)))
        if not len(self):
            raise ValueError(
                f"{pattern}: no conversations in it; each line must be one JSON object"
            )

    def __reduce__(self) -> "tuple[type[Records], tuple[str]]":
        """Travel to another process as a name, not as an index."""
        return Records, (self.pattern,)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Conversation:
        """Read conversation `index`. Raises ValueError that names file and line."""
        if not 0 <= index < len(self):
            raise IndexError(f"conversation {index} of {len(self)}")
        at = bisect_right(self._ends, index)
        path, n = self.files[at], index - (self._ends[at - 1] if at else 0)
        if _is_parquet(path):
            return _parse(parquet_value(path, COLUMN, n), f"{path}, row {n}", path.parent)
        with path.open("rb") as file:
            file.seek(start := int(index_of(path, _line_starts)[n]))
            line = file.readline()
        try:
            return _parse(line, str(path), path.parent)
        except ValueError:  # only now is it worth counting lines
            return _parse(line, f"{path}:{_line_number(path, start)}", path.parent)

    def labels(self, by: Sequence[Label]) -> tuple[list[tuple[str, ...]], np.ndarray]:
        """Return the kinds that differ in `by`, and the number (int64) of each conversation's."""
        columns = []
        for key in by:
            if key == "file":
                names = np.array([os.fsencode(path.name) for path in self.files])
                sizes = np.diff([0, *self._ends])
                columns.append(np.repeat(names, sizes))
            else:
                place = list(_LABELS).index(key)
                columns.append(np.concatenate([index_of(p, _labels)[:, place] for p in self.files]))
        kinds, numbers = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        return [tuple(name.decode(errors="replace") for name in kind) for kind in kinds], numbers


def spread(total: int, number: int) -> list[int]:
    """Return so many of the places 0 to `total`, evenly spaced; all if there are no more."""
    number = min(number, total)
    return [n * total // number for n in range(number)]


def write_lines(path: Path, conversations: Iterable[Conversation]) -> None:
    """Write conversations, whose clips' paths are relative to the folder, as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(to_line(conversation) + "\n" for conversation in conversations)
    path.write_text(lines, encoding="utf-8")


def load_clips(conversation: Conversation) -> list[np.ndarray]:
    """Return the samples of every clip, float32 at 16 kHz. Raises ValueError that names both."""
    try:
        return [load(clip.audio, clip.start, clip.duration) for clip in conversation.clips]
    except (ValueError, OSError) as error:
        raise ValueError(f"conversation '{conversation.id}': {error}") from None


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _count(path: Path) -> int:
    return parquet_rows(path) if _is_parquet(path) else len(index_of(path, _line_starts))


def _line_starts(path: Path) -> np.ndarray:
    """Return the byte offset (int64) of every line that is not blank."""
    size = path.stat().st_size
    starts = [np.zeros(1, np.int64)]
    with path.open("rb") as file:
        offset = 0
        while block := file.read(_BLOCK):
            starts.append(np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + offset + 1)
            offset += len(block)
        start = np.concatenate(starts)
        short = np.flatnonzero(np.diff(start, append=size) < _SHORTEST)
        blank = []
        for n in short:
            file.seek(start[n])
            if not file.readline().strip():
                blank.append(n)
    return np.delete(start, blank)


def _labels(path: Path) -> np.ndarray:
    """Return (conversations, 2) byte strings: the language and the task of each."""
    if _is_parquet(path):
        lines = (parquet_value(path, COLUMN, row) for row in range(parquet_rows(path)))
    else:
        lines = _lines(path)
    records = (_record(line) for line in lines)
    labels = [[str(record.get(*item)).encode() for item in _LABELS.items()] for record in records]
    return np.array(labels, "S24").reshape(-1, len(_LABELS))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


def _record(line: bytes) -> dict:
    """Return a line's JSON object; what is none is refused when it is drawn, by name."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _line_number(path: Path, start: int) -> int:
    with path.open("rb") as file:
        return 1 + file.read(start).count(b"\n")


def _parse(line: bytes, where: str, folder: Path) -> Conversation:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    return _absolute(parse_line(text, where), folder)


def _absolute(conversation: Conversation, folder: Path) -> Conversation:
    """Make the clips' paths, which are relative to their file, absolute."""
    if not conversation.clips:
        return conversation
    return conversation.with_clips(
        [replace(clip, audio=str(folder / clip.audio)) for clip in conversation.clips]
    )
