"""Lines of old games whose text is not beside them: Whisper-base writes down what it hears.

It pads what it hears to 30 s, so lines are joined to clips of some 20 s first, which takes an
eighth of the time. Clips at whose length nobody says so much or so little are left out.
"""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from coffee import transcripts

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.text import transcribe_instruction

HZ = 11_025
LONGEST = 20 * HZ
PAUSE = np.zeros(HZ // 3, dtype=np.float32)


def speech(lines: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Return the samples of lines, from unsigned bytes, leaving out noise and silence."""
    found = {
        key: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
        for key, data in lines.items()
    }
    return {key: samples for key, samples in found.items() if is_speech(samples)}


def is_speech(samples: np.ndarray) -> bool:
    """Return whether neighbours among (S,) samples from -1 to 1 are near each other; else noise."""
    if not HZ / 4 <= len(samples) <= LONGEST:
        return False
    return bool(0.01 < samples.std() < 0.6 and np.abs(np.diff(samples)).mean() < 0.15)


def joined(lengths: Mapping[str, int]) -> list[list[str]]:
    """Divide lines, in their order, into runs of at most `LONGEST` samples, pauses not counted."""
    runs: list[list[str]] = []
    left = 0
    for key, length in lengths.items():
        if length > left:
            runs.append([])
            left = LONGEST
        runs[-1].append(key)
        left -= length
    return runs


def heard_lines(
    lines: Mapping[str, np.ndarray],
    runs: Sequence[Sequence[str]],
    lang: str,
    meta: Mapping[str, str],
    out: Path,
) -> dict[str, Audio]:
    """Write `clips.tar` and `asr-train.jsonl` of runs of lines; return what is kept."""
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    kept: dict[str, Audio] = {}
    with Conversations(out) as conversations:
        with tarfile.open(out / "clips.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for run in runs:
                samples = np.concatenate([part for key in run for part in (PAUSE, lines[key])])
                file = io.BytesIO()
                soundfile.write(file, samples, HZ, format="WAV", subtype="PCM_U8")
                entry = tarfile.TarInfo(f"{run[0]}.wav")
                entry.size = file.tell()
                tar.addfile(entry, io.BytesIO(file.getvalue()))
                paths[run[0]] = f"{out.absolute()}/clips.tar#{entry.name}"
        for key, text in transcripts(paths, lang).items():
            if not is_likely(text, len(load(paths[key])) / SAMPLE_RATE):
                conversations.drop("heard unlikely words")
                continue
            kept[key] = Audio(paths[key], text=text)
            turns = (user(transcribe_instruction(lang), kept[key]), assistant(text))
            told = {**meta, "synthetic": False, "pseudo": "whisper-base"}
            name = f"{meta['source'].split()[1]}-{lang}-{key}"
            conversation = Conversation(name, turns, "asr", lang, told)
            conversations.add_conversation(conversation, "asr-train")
    print(f"{conversations.kept} clips, {conversations.duration_s / 3600:.2f} h, in {out}")
    print(f"left out: {dict(conversations.dropped)}")
    return kept


def is_likely(text: str, seconds: float) -> bool:
    """Return whether a person says so much in that time, and no word again and again."""
    words = text.lower().split()
    return 5 <= len(text) / seconds <= 25 and len(set(words)) > 0.4 * len(words)
