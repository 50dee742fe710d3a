"""Conversations on disk: JSON lines that are indexed, not loaded."""

import glob
from array import array
from pathlib import Path

import numpy as np

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, parse_line


class Records:
    """A source's conversations, by number; each is read from its file when it is asked for."""

    def __init__(self, pattern: str) -> None:
        """Index the JSONL file, or the files of a glob in the order of their names.

        Raises ValueError if there is none, or if they hold no line.
        """
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        self.files = [path for path in map(Path, found) if path.is_file()]
        if not self.files:
            raise ValueError(f"{pattern}: no such file; name a JSONL file of conversations")
        self._lines = [_index(path) for path in self.files]
        if not len(self):
            raise ValueError(
                f"{pattern}: no conversations in it; each line must be one JSON object"
            )

    def __len__(self) -> int:
        return sum(len(starts) for starts, _ in self._lines)

    def __getitem__(self, index: int) -> Conversation:
        """Read conversation `index`. Raises ValueError that names file and line."""
        n = index
        for path, (starts, numbers) in zip(self.files, self._lines, strict=True):
            if n < len(starts):
                return _read(path, starts[n], numbers[n])
            n -= len(starts)
        raise IndexError(f"conversation {index} of {len(self)}")


def load_clips(conversation: Conversation) -> list[np.ndarray]:
    """Return the samples of every clip, float32 at 16 kHz. Raises ValueError that names both."""
    try:
        return [load(clip.audio, clip.start, clip.duration) for clip in conversation.clips]
    except (ValueError, OSError) as error:
        raise ValueError(f"conversation '{conversation.id}': {error}") from None


def _index(path: Path) -> "tuple[array[int], array[int]]":
    """Return the byte offset and the number of every line that is not blank."""
    starts, numbers = array("Q"), array("L")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                starts.append(offset)
                numbers.append(number)
            offset += len(line)
    return starts, numbers


def _read(path: Path, start: int, number: int) -> Conversation:
    with path.open("rb") as file:
        file.seek(start)
        line = file.readline()
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None
    return _absolute(parse_line(text, f"{path}:{number}"), path.parent)


def _absolute(conversation: Conversation, folder: Path) -> Conversation:
    """Make the clips' paths, which are relative to their file, absolute."""
    if not conversation.clips:
        return conversation
    turns = tuple(
        type(turn)(
            turn.role,
            tuple(
                Audio(str(folder / p.audio), p.start, p.duration, p.text)
                if isinstance(p, Audio)
                else p
                for p in turn.parts
            ),
        )
        for turn in conversation.messages
    )
    return Conversation(
        conversation.id, turns, conversation.task, conversation.lang, conversation.meta
    )
