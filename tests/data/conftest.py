"""Sources for importers are written by the tools they come from; here is what all of them need."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Conversation
from voicetextblender.data.records import Records, load_clips


@pytest.fixture
def write_wav(sound: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Write half a second, or more, of a tone: `write_wav(folder / "a.wav", 2.0)`."""

    def write(path: Path, duration_s: float = 0.5) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.save(path, sound(duration_s))
        return path

    return write


@pytest.fixture
def read_back() -> Callable[[Path], dict[str, Conversation]]:
    """Read a JSONL file as training does, clips and all; return its conversations by id."""

    def read(path: Path) -> dict[str, Conversation]:
        records = Records(str(path))
        conversations = [records[n] for n in range(len(records))]
        for conversation in conversations:
            for clip, samples in zip(conversation.clips, load_clips(conversation), strict=True):
                assert clip.duration is not None
                assert samples.size == pytest.approx(clip.duration * 16_000, abs=16)
        assert len({c.id for c in conversations}) == len(conversations)
        return {c.id: c for c in conversations}

    return read
