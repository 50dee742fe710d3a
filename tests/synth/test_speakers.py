"""Speakers: voices made higher or lower, in conditions, and listened to."""

import numpy as np
import pytest

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.synth.speakers import Speakers, draw_warp


class FakeVoice:
    """Hums at 200 Hz, 0.1 s a letter, at 24 kHz."""

    rate = 24_000

    def __init__(self, name):
        self.name = name

    def speak(self, text, seed, speed=1.0):
        times = np.arange(int(0.1 * self.rate * len(text) / speed)) / self.rate
        return (0.3 * np.sin(2 * np.pi * 200 * times)).astype(np.float32)


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.speakers.load_voice", FakeVoice)


@pytest.mark.parametrize("warp", [0.8, 1.0, 1.25])
def test_a_warped_voice_is_as_much_higher_and_keeps_its_pace(warp):
    heard = Speakers(("espeak:en",)).say("espeak:en", ["x" * 20], np.random.default_rng(3), warp)
    plain = Speakers(("espeak:en",)).say("espeak:en", ["x" * 20], np.random.default_rng(3), 1.0)
    assert len(heard) == pytest.approx(len(plain), rel=0.1)  # but for the pause behind it
    hum = heard[:SAMPLE_RATE]
    pitch_hz = np.abs(np.fft.rfft(hum)).argmax() * SAMPLE_RATE / len(hum)
    assert pitch_hz == pytest.approx(200 * warp, rel=0.01)


def test_warps_go_as_far_up_as_down():
    random = np.random.default_rng(1)
    warps = [draw_warp(0.25, random) for _ in range(1000)]
    assert 0.8 <= min(warps) < 0.82 and 1.22 < max(warps) <= 1.25
    assert np.median(warps) == pytest.approx(1, abs=0.03)


def test_a_share_of_the_clips_stays_clean():
    speakers, clip = Speakers(("espeak:en",), augment=1.0, clean=0.5), np.ones(800, np.float32)
    heard = [speakers.put_in_conditions(clip, np.random.default_rng(n)) for n in range(100)]
    left_alone = [samples is clip for samples, _ in heard]
    assert 30 < sum(left_alone) < 70
    assert [conditions is None for _, conditions in heard] == left_alone


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"voices": ()}, "voices is empty; name at least one"),
        ({"lang": "de"}, "voice 'hibari' does not speak 'de'; use espeak:de"),
        ({"augment": 1.5}, "augment is 1.5; it must be 0 .none. to 1"),
        ({"max_wer": -1}, "max_wer is -1; it must be a share, 0 or more"),
    ],
)
def test_speakers_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Speakers(**wrong)
