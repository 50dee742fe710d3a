import numpy as np
import pytest


class FakeVoice:
    """Says 0.1 s of a tone for each character."""

    rate = 24_000

    def __init__(self):
        self.said = []

    def speak(self, text, seed, speed=1.0):
        self.said.append((text, seed))
        return np.sin(np.arange(2400 * len(text)) / 20).astype(np.float32)


@pytest.fixture
def voice(monkeypatch):
    fake = FakeVoice()
    monkeypatch.setattr("voicetextblender.eval.speak.load_voice", lambda name: fake)
    return fake
