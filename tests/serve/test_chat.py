import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.chat import Chat


@pytest.fixture
def chat(start):
    return Chat(start(), Decoding(max_new_tokens=4))


def test_each_answer_sees_the_turns_before_it_and_does_not_read_them_again(chat):
    "".join(chat.say("hello"))
    assert chat.engine.stats.reused_tokens == 0
    "".join(chat.say("again"))
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2
    assert chat.engine.stats.reused_tokens > 0
    chat.new()
    assert chat.turns == []


def test_recordings_go_with_the_next_message_alone(chat, sound, tmp_path):
    path = tmp_path / "a.wav"
    audio.save(path, sound(0.5))
    assert chat.add_audio(str(path)) == pytest.approx(0.5)
    assert chat.add_clip(np.zeros(1600, np.float32), "microphone") == pytest.approx(0.1)
    "".join(chat.say("what is said?"))
    assert len(chat.turns[0].clips) == 2 and chat.pending == []
    "".join(chat.say("and now?"))
    assert len(chat.clips) == 2


def test_a_missing_recording_is_an_error_and_nothing_is_lost(chat):
    "".join(chat.say("hello"))
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        chat.add_audio("nowhere.wav")
    assert len(chat.turns) == 2 and chat.pending == []


def test_a_captioning_model_says_what_it_heard_before_it_answers(chat, start):
    captioned = Chat(start(captions=True), Decoding(max_new_tokens=4))
    samples = np.zeros(1600, np.float32)
    captioned.captions.correct(samples, "one word")
    captioned.add_clip(samples, "microphone")
    assert captioned.heard() == "one word"
    chat.add_clip(samples, "microphone")
    assert chat.heard() is None
