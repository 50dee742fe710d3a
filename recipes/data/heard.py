"""Lines of old games whose text is not beside them: Whisper-base writes down what it hears.

Lines that it hears at an unlikely rate are left out, and what is no speech.
"""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from coffee import transcripts

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.text import transcribe_instruction

HZ = 11_025


def heard_lines(
    lines: Iterable[tuple[str, bytes]], name: str, lang: str, meta: dict[str, str], out: Path
) -> dict[str, Audio]:
    """Write `clips.tar` and `asr-train.jsonl` of lines, unsigned bytes; return what is kept."""
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    kept: dict[str, Audio] = {}
    with Conversations(out) as conversations:
        with tarfile.open(out / "clips.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, data in lines:
                samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
                if not is_speech(samples):
                    conversations.drop("no speech")
                    continue
                file = io.BytesIO()
                soundfile.write(file, samples, HZ, format="WAV", subtype="PCM_U8")
                entry = tarfile.TarInfo(f"{key}.wav")
                entry.size = file.tell()
                tar.addfile(entry, io.BytesIO(file.getvalue()))
                paths[key] = f"{out.absolute()}/clips.tar#{entry.name}"
        for key, text in transcripts(paths, lang).items():
            if not is_likely(text, len(load(paths[key])) / SAMPLE_RATE):
                conversations.drop("heard unlikely words")
                continue
            kept[key] = Audio(paths[key], text=text)
            turns = (user(transcribe_instruction(lang), kept[key]), assistant(text))
            told = {**meta, "synthetic": False, "pseudo": "whisper-base"}
            conversation = Conversation(f"{name}-{key}", turns, "asr", lang, told)
            conversations.add_conversation(conversation, "asr-train")
    print(f"{conversations.kept} clips, {conversations.duration_s / 3600:.2f} h, in {out}")
    print(f"left out: {dict(conversations.dropped)}")
    return kept


def is_speech(samples: np.ndarray) -> bool:
    """Return whether neighbours among (S,) samples from -1 to 1 are near each other; else noise."""
    if len(samples) < HZ // 4:
        return False
    return bool(0.01 < samples.std() < 0.6 and np.abs(np.diff(samples)).mean() < 0.15)


def is_likely(text: str, seconds: float) -> bool:
    """Return whether a person says so much in that time, and no word again and again."""
    words = text.lower().split()
    return 4 <= len(text) / seconds <= 25 and len(set(words)) > len(words) / 2
