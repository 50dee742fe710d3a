"""Sources: what training conversations are made from, read and made fit."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from voicetextblender.chat import Audio, Conversation
from voicetextblender.data.records import Records
from voicetextblender.text import normalise


def read_sentences(path: Path) -> tuple[str, ...]:
    """Read a text file, one sentence a line, plain or gzipped. Raises ValueError if it is empty."""
    sentences = tuple(line.strip() for line in _lines(path) if line.strip())
    if not sentences:
        raise ValueError(f"{path}: no sentences in it; write one on each line")
    return sentences


def read_pairs(path: Path, spoken: int = 0, least_words: int = 3) -> tuple[tuple[str, str], ...]:
    """Read (sentence, translation) from the first two columns of a TSV, plain or gzipped.

    `spoken` is the column, 0 or 1, that comes first; of lines in which it is the same, or shorter
    than `least_words`, the first and none are kept. Raises ValueError if nothing is left.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not all(columns[:2]):
            raise ValueError(f"{path}:{number}: expected a sentence, a tab and its translation")
        said, other = columns[spoken], columns[1 - spoken]
        if len(said.split()) >= least_words:
            pairs.setdefault(normalise(said), (said, other))
    if not pairs:
        raise ValueError(f"{path}: no pair whose sentence has {least_words} words or more")
    return tuple(pairs.values())


def read_clips(pattern: str, out: Path, least_words: int = 6) -> tuple[Conversation, ...]:
    """Read the conversations with one clip whose words are known, each text once.

    The clips stay where they are; their paths become relative to `out`. Raises ValueError if no
    conversation says what is said in its clip.
    """
    found: dict[str, Conversation] = {}
    is_told = False
    for conversation in _conversations(pattern):
        text = conversation.clips[0].text if len(conversation.clips) == 1 else None
        is_told |= bool(text)
        if text and len(text.split()) >= least_words:
            found.setdefault(normalise(text), conversation)
    if not found:
        lack = f"of {least_words} words or more" if is_told else "with the 'text' of its clip"
        raise ValueError(
            f"{pattern}: no conversation with one clip {lack}; questions are asked about what is "
            f"said, so import the recordings with their transcripts"
        )
    return tuple(_relative(conversation, out) for conversation in found.values())


def read_recordings(pattern: str) -> tuple[Conversation, ...]:
    """Read the transcribed recordings: one clip whose words are known, and an answer that says so.

    Raises ValueError if there is none.
    """
    found = tuple(
        conversation
        for conversation in _conversations(pattern)
        if conversation.task == "asr"
        and len(conversation.clips) == 1
        and conversation.clips[0].text
    )
    if not found:
        raise ValueError(
            f"{pattern}: no conversation of task 'asr' with one clip and its 'text'; import the "
            f"recordings with their transcripts"
        )
    return found


def read_chats(pattern: str) -> tuple[Conversation, ...]:
    """Read the conversations without audio that begin with a user, each once.

    Raises ValueError if there is none.
    """
    found: dict[str, Conversation] = {}
    for conversation in _conversations(pattern):
        turns = [turn for turn in conversation.messages if turn.role != "system"]
        if turns and turns[0].role == "user" and not conversation.clips:
            found.setdefault(repr(turns), conversation)
    if not found:
        raise ValueError(f"{pattern}: no conversation without audio that begins with a user turn")
    return tuple(found.values())


def _conversations(pattern: str) -> Iterator[Conversation]:
    records = Records(pattern)
    return (records[n] for n in range(len(records)))


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8").splitlines()


def _relative(conversation: Conversation, out: Path) -> Conversation:
    clip = conversation.clips[0]
    file, separator, member = clip.audio.partition("#")
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(out)) + separator + member
    placed = Audio(path, clip.start, clip.duration, clip.text)
    turns = tuple(
        type(turn)(turn.role, tuple(placed if part is clip else part for part in turn.parts))
        for turn in conversation.messages
    )
    return Conversation(
        conversation.id, turns, conversation.task, conversation.lang, conversation.meta
    )
