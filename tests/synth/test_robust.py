"""Recordings in which nobody speaks, or not to the end, and recordings that are not there."""

import json
from typing import get_args

import numpy as np
import pytest

from voicetextblender.data.records import Records, load_clips
from voicetextblender.synth.plan import run
from voicetextblender.synth.robust import Kind, Robust
from voicetextblender.synth.speakers import Speakers

SENTENCES = ("The old man went slowly down to the harbour.", "Nobody said a word about it later.")


class FakeVoice:
    """Says each word in a tenth of a second, as loud as the word is long, but not 'harbour'."""

    rate = 16_000

    def __init__(self, name):
        self.name = name

    def speak(self, text, seed, speed=1.0):
        if "harbour" in text and self.name == "espeak:en-mute":
            raise ValueError(f"cannot say {text!r}")
        return np.repeat([len(word) / 10 for word in text.split()], 1600).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def fakes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voicetextblender.synth.speakers.load_voice", FakeVoice)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("robust")
    list(run(Robust(SENTENCES, 75, Speakers(("espeak:en",))), out))
    records = Records(f"{out}/*.jsonl")
    kinds = {kind: [] for kind in get_args(Kind)}
    for n in range(len(records)):
        kinds[records[n].meta["kind"]].append((records[n], load_clips(records[n])))
    return kinds


def test_each_kind_is_made_as_often(found):
    assert {len(items) for items in found.values()} == {15}
    assert all(len(conversation.clips) == 1 for conversation, _ in found["music"])


def test_where_nobody_speaks_the_transcript_is_empty_and_the_answer_says_so(found):
    for kind in ("silence", "noise", "music"):
        answers = {conversation.messages[-1].text for conversation, _ in found[kind]}
        assert "" in answers and len(answers) > 2
        assert all(c.clips[0].text == "" for c, _ in found[kind])


def test_silence_is_silent_and_noise_and_music_are_not_and_music_has_tones(found):
    for kind, low, high in (("silence", 0, 0.01), ("noise", 0.01, 0.4), ("music", 0.01, 0.4)):
        for _, (samples,) in found[kind]:
            assert low <= np.sqrt(np.mean(samples**2)) <= high
            assert 1 <= len(samples) / 16_000 <= 12

    def peakiness(samples):
        power = np.abs(np.fft.rfft(samples[:16_000])) ** 2
        return np.sort(power)[-20:].sum() / power.sum()

    white = np.random.default_rng(0).standard_normal(16_000)
    assert np.median([peakiness(clip) for _, (clip,) in found["music"]]) > 10 * peakiness(white)


def test_speech_breaks_off_within_a_word_and_is_written_as_far_as_it_goes(found):
    for conversation, (samples,) in found["cut-off"]:
        heard = conversation.clips[0].text
        said = next(sentence for sentence in SENTENCES if sentence.startswith(heard))
        num_words = len(heard.split())
        assert 3 <= num_words < len(said.split()) - 1
        assert 0.2 < len(samples) / 1600 - num_words < 0.5
        answer = conversation.messages[-1].text
        assert heard.split()[-1].lower().strip(".") in answer.lower()
        assert said.split()[-1].lower().strip(".") not in answer.lower()


def test_nobody_hears_a_recording_that_is_not_there(found):
    for conversation, clips in found["no-audio"]:
        assert (
            not clips
            and "audio" in (answer := conversation.messages[-1].text)
            or ("recording" in answer)
        )


def test_what_a_voice_cannot_say_is_counted(tmp_path):
    plan = Robust(("The harbour was as quiet as it is.",), 50, Speakers(("espeak:en-mute",)))
    list(run(plan, tmp_path, max_drop=1))
    told = json.loads((tmp_path / "report.json").read_text())
    expected = {"by": "cut-off", "reason": "not able to be said by espeak:en-mute", "count": 10}
    assert told["dropped"] == [expected]


def test_speech_that_breaks_off_needs_a_sentence_of_some_words():
    with pytest.raises(ValueError, match="no sentence has six words or more"):
        Robust(("Too short.",))
