import pytest

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.model.generate import Decoding
from voicetextblender.serve import captions
from voicetextblender.serve.captions import conversing
from voicetextblender.serve.transcribe import Task, segments_of

FIRST, SECOND = Audio("a.wav"), Audio("b.wav")
FEW = Decoding(max_new_tokens=4)


@pytest.fixture
def speech(monkeypatch, sound):
    """Clips in which somebody speaks, as the detector by loudness has it."""
    monkeypatch.setattr("voicetextblender.speech.build_detector", lambda: lambda frame: 1.0)
    return [sound(0.5, 1), sound(0.7, 2)]


def written(engine, clip):
    return " ".join(segment.text for segment in segments_of(engine, [clip], Task()))


def test_a_model_answers_as_if_its_own_transcript_were_typed_behind_each_clip(start, speech):
    engine = start(captions=True)
    talk = Conversation("x", (user("Say: ", FIRST), assistant("yes"), user(SECOND, "and?")))
    words = [written(engine, clip) for clip in speech]
    assert all(words)
    typed = talk.captioned(words)
    assert typed.messages[0] == user("Say: ", FIRST, f"\n{words[0]}")
    assert typed.messages[2] == user(SECOND, f"\n{words[1]}\n", "and?")
    asked = conversing(engine)(talk, speech, FEW)
    wanted = engine.submit(typed, speech, FEW)
    assert asked.prompt_tokens == wanted.prompt_tokens
    assert asked.text() == wanted.text()


@pytest.mark.parametrize("setting", [None, False])
def test_without_the_setting_clips_are_heard_alone(start, speech, setting):
    engine = start(captions=setting)
    talk = Conversation("x", (user("Say: ", FIRST),))
    asked = conversing(engine)(talk, speech[:1], FEW)
    assert asked.prompt_tokens == engine.submit(talk, speech[:1], FEW).prompt_tokens


def test_the_models_own_setting_holds_where_the_engine_says_nothing(start, speech):
    engine = start()
    engine.model.config.settings = {**engine.model.config.settings, "captions": True}
    talk = Conversation("x", (user("Say: ", FIRST),))
    asked = conversing(engine)(talk, speech[:1], FEW)
    assert asked.prompt_tokens > engine.submit(talk, speech[:1], FEW).prompt_tokens


def test_a_clip_is_written_down_once_until_it_is_forgotten(start, speech, monkeypatch):
    monkeypatch.setattr(captions, "KEPT", 1)
    engine = start(captions=True)
    ask = conversing(engine)

    def transcripts(clip):
        before = engine.stats.finished
        ask(Conversation("x", (user("Say: ", FIRST),)), [clip], FEW).text()
        return engine.stats.finished - before - 1

    assert [transcripts(speech[n]) for n in (0, 0, 1, 1, 0)] == [1, 0, 1, 0, 1]


def test_where_nobody_speaks_and_where_the_voice_is_off_there_is_no_caption(start, sound):
    engine = start(captions=True)
    ask = conversing(engine)
    talk = Conversation("x", (user("Say: ", FIRST),))
    silence = [0 * sound(0.5)]
    for voice in (True, False):
        asked = ask(talk, silence, FEW, voice=voice)
        assert asked.prompt_tokens == engine.submit(talk, silence, FEW).prompt_tokens
        asked.text()


def test_a_clip_too_few_is_an_error_of_the_engine(start, speech):
    ask = conversing(start(captions=True))
    with pytest.raises(ValueError, match="has 2 clips, and samples of 1"):
        ask(Conversation("x", (user(FIRST, SECOND),)), speech[:1], FEW)
