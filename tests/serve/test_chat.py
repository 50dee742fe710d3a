import pytest

from voicetextblender import audio
from voicetextblender.model.generate import Decoding
from voicetextblender.serve.chat import Chat


@pytest.fixture
def chat(build, processor):
    return Chat(build(), processor, Decoding(max_new_tokens=4))


def test_each_answer_sees_the_turns_before_it(chat):
    "".join(chat.say("hello"))
    "".join(chat.say("again"))
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2
    chat.new()
    assert chat.turns == []


def test_recordings_go_with_the_next_message_alone(chat, sound, tmp_path):
    path = tmp_path / "a.wav"
    audio.save(path, sound(0.5))
    assert chat.add_audio(str(path)) == pytest.approx(0.5)
    "".join(chat.say("what is said?"))
    assert len(chat.turns[0].clips) == 1 and chat.pending == []


def test_a_missing_recording_is_an_error_and_nothing_is_lost(chat):
    "".join(chat.say("hello"))
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        chat.add_audio("nowhere.wav")
    assert len(chat.turns) == 2 and chat.pending == []
