"""Spoken items: conversations whose words a voice says, each beside its typed twin.

A clip that is still to be said has no file, only its words; every line of them is said by another
speaker. Packaged voices speak everywhere, so the sets of an evaluation need no download; what they
say is synthetic, and named so in `meta`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soxr

from voicetextblender.audio import SAMPLE_RATE, save
from voicetextblender.chat import Audio, Conversation, Text, Turn
from voicetextblender.data.records import write_lines
from voicetextblender.seeding import seeded
from voicetextblender.synth.voices import load_voice

PAUSE_S = 0.35
"""Between two speakers in one clip, and at both ends."""
_DEEPER = 0.82  # pitch and pace of the second speaker where there is one voice for two


def to_say(*lines: str) -> Audio:
    """Return a clip that is still to be said, each line by another speaker."""
    return Audio("", text="\n".join(lines))


def spoken(item: Conversation) -> Conversation:
    """Return the twin of a typed item in which every turn of the user's is said.

    Raises ValueError for an item that has clips already.
    """
    if item.clips:
        raise ValueError(f"conversation '{item.id}' has clips; only a typed one can be spoken")
    turns = tuple(
        Turn("user", (to_say(" ".join(_typed(turn).split())),)) if turn.role == "user" else turn
        for turn in item.messages
    )
    return replace(item, messages=turns)


def write_spoken(
    items: Sequence[Conversation], folder: Path, voices: Sequence[str], seed: int = 0
) -> None:
    """Say what is to be said in items; write `folder/items.jsonl` and the clips beside it.

    A voice is drawn for each item; a second speaker has another one, or the same voice deeper.
    Raises ValueError for a voice that is not there or cannot say something.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    said = []
    for item in items:
        random = seeded(seed, "speaker", item.id)
        speakers = [voices[int(n)] for n in random.permutation(len(voices))]
        clips = []
        for number, clip in enumerate(item.clips):
            if not clip.audio:
                name = f"clips/{item.id}-{number}.flac"
                samples = _say((clip.text or "").splitlines(), speakers, seed)
                save(folder / name, samples)
                clip = Audio(name, duration=round(len(samples) / SAMPLE_RATE, 3), text=clip.text)
            clips.append(clip)
        if any(not clip.audio for clip in item.clips):
            meta = {**item.meta, "voice": speakers[0], "synthetic": True}
            item = replace(item.with_clips(clips), meta=meta)
        said.append(item)
    write_lines(folder / "items.jsonl", said)


def _say(lines: Sequence[str], voices: Sequence[str], seed: int) -> np.ndarray:
    """Return (S,) float32 at SAMPLE_RATE: the lines, by the voices in turn."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), dtype=np.float32)
    pieces = [pause]
    for number, line in enumerate(lines):
        voice = load_voice(voices[number % min(2, len(voices))])
        is_deeper = number % 2 == 1 and len(voices) == 1
        rate = voice.rate * (_DEEPER if is_deeper else 1.0)
        pieces += [soxr.resample(voice.speak(line, seed), rate, SAMPLE_RATE), pause]
    return np.concatenate(pieces).astype(np.float32)


def _typed(turn: Turn) -> str:
    return "".join(part.text for part in turn.parts if isinstance(part, Text))
