"""What people think of answers, saved as conversations that are ready for training.

A folder holds `good.jsonl` and `bad.jsonl`, one line for each conversation that somebody had an
opinion on, and the recordings in `clips/`. A conversation is good up to the last answer that was
praised or corrected, unless one before it was found wrong and left as it was.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voicetextblender.audio import load, save
from voicetextblender.chat import Audio, Conversation, Part, Turn, assistant, to_line

Opinion = Literal["good", "bad", "corrected"]
_writing = threading.Lock()


@dataclass(slots=True)
class Talk:
    """A conversation under way, and what was thought of its answers."""

    id: str = field(default_factory=lambda: f"talk-{secrets.token_hex(6)}")
    turns: list[Turn] = field(default_factory=list)
    opinions: dict[int, Opinion] = field(default_factory=dict)
    """By the number of the turn."""
    heard: dict[str, str] = field(default_factory=dict)
    """What the model wrote down of recordings, by their path; it may have misheard."""

    def judge(self, turn: int, opinion: Opinion | None) -> None:
        """Praise an answer, find it wrong, or (None) take that back."""
        if opinion is None:
            self.opinions.pop(turn, None)
        else:
            self.opinions[turn] = opinion

    def correct(self, turn: int, answer: str) -> None:
        """Put what should have been said in the place of an answer."""
        self.turns[turn] = assistant(answer)
        self.opinions[turn] = "corrected"

    def cut(self, turn: int) -> list[Turn]:
        """Take back everything from a turn on, and return it."""
        gone, self.turns = self.turns[turn:], self.turns[:turn]
        self.opinions = {n: opinion for n, opinion in self.opinions.items() if n < turn}
        return gone


def keep(folder: Path, talk: Talk, meta: Mapping[str, object]) -> Path | None:
    """Write a talk with its recordings to the folder, in the place of what it was before.

    Returns the file that holds it now; None if nobody has an opinion on it.
    """
    judged = sorted(talk.opinions)
    with _writing:
        for name in ("good.jsonl", "bad.jsonl"):
            _rewrite(folder / name, without=talk.id)
        if not judged:
            return None
        last = next((n for n in reversed(judged) if talk.opinions[n] != "bad"), None)
        spoilt = any(talk.opinions[n] == "bad" for n in judged if last is None or n < last)
        path = folder / ("bad.jsonl" if last is None or spoilt else "good.jsonl")
        end = judged[-1] if last is None or spoilt else last
        conversation = Conversation(
            talk.id,
            tuple(_kept(turn, folder) for turn in talk.turns[: end + 1]),
            "mixed",
            meta={**meta, "opinions": [talk.opinions.get(n) for n in range(1, end + 1, 2)]},
        )
        _rewrite(path, without=talk.id, line=to_line(conversation))
    return path


def _kept(turn: Turn, folder: Path) -> Turn:
    """Copy a turn's recordings into the folder, each once, named by what is in it."""
    parts: list[Part] = []
    for part in turn.parts:
        if isinstance(part, Audio):
            samples = load(part.audio, part.start, part.duration)
            name = f"clips/{hashlib.sha256(samples.tobytes()).hexdigest()[:16]}.flac"
            (folder / "clips").mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                save(folder / name, samples)
            part = Audio(name, text=part.text)
        parts.append(part)
    return Turn(turn.role, tuple(parts))


def _rewrite(path: Path, without: str, line: str | None = None) -> None:
    """Write the file anew without a conversation, and with `line` at its end."""
    old = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines: Sequence[str] = [kept for kept in old if not kept.startswith(f'{{"id": "{without}"')]
    if line is not None:
        lines = [*lines, line]
    if lines == old:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text("".join(f"{kept}\n" for kept in lines), encoding="utf-8")
    os.replace(draft, path)
