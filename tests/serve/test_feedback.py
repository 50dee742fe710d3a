import json

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, assistant, user
from voicetextblender.data.records import Records, load_clips
from voicetextblender.serve.feedback import Talk, keep


@pytest.fixture
def talk(tmp_path, sound):
    clip = tmp_path / "upload/a.wav"
    clip.parent.mkdir()
    audio.save(clip, sound(0.5))
    return Talk(
        turns=[
            user("what is said?", Audio(str(clip), text="hello")),
            assistant("hello"),
            user("again"),
            assistant("helo"),
        ]
    )


def kept(folder, name):
    return [c for r in [Records(str(folder / name))] for c in map(r.__getitem__, range(len(r)))]


def test_praise_saves_a_conversation_that_training_reads_with_its_recordings(tmp_path, talk):
    talk.judge(1, "good")
    assert keep(tmp_path / "kept", talk, {"model": "tiny"}) == tmp_path / "kept/good.jsonl"
    (tmp_path / "upload/a.wav").unlink()
    (read,) = kept(tmp_path / "kept", "good.jsonl")
    assert [turn.role for turn in read.messages] == ["user", "assistant"]
    assert read.meta == {"model": "tiny", "opinions": ["good"]}
    assert read.clips[0].text == "hello"
    assert len(load_clips(read)[0]) == 8000


def test_a_correction_replaces_the_answer_and_makes_the_conversation_good(tmp_path, talk):
    talk.judge(3, "bad")
    keep(tmp_path, talk, {})
    assert len(kept(tmp_path, "bad.jsonl")) == 1
    talk.correct(3, "hello")
    keep(tmp_path, talk, {})
    (read,) = kept(tmp_path, "good.jsonl")
    assert read.messages[3] == assistant("hello")
    assert read.meta["opinions"] == [None, "corrected"]
    assert (tmp_path / "bad.jsonl").read_text() == ""


def test_an_answer_found_wrong_spoils_what_follows_it_but_not_what_came_before(tmp_path, talk):
    talk.judge(1, "bad")
    talk.judge(3, "good")
    keep(tmp_path, talk, {})
    assert len(kept(tmp_path, "bad.jsonl")) == 1
    talk.judge(1, "good")
    talk.judge(3, "bad")
    keep(tmp_path, talk, {})
    (read,) = kept(tmp_path, "good.jsonl")
    assert len(read.messages) == 2


def test_an_opinion_that_is_taken_back_leaves_nothing(tmp_path, talk):
    talk.judge(1, "good")
    keep(tmp_path, talk, {})
    talk.judge(1, None)
    assert keep(tmp_path, talk, {}) is None
    assert (tmp_path / "good.jsonl").read_text() == ""


def test_conversations_of_others_stay(tmp_path, talk):
    other = Talk(turns=[user("hi"), assistant("hello")])
    for each in (other, talk, talk):
        each.judge(1, "good")
        keep(tmp_path, each, {})
    ids = [json.loads(line)["id"] for line in (tmp_path / "good.jsonl").read_text().splitlines()]
    assert ids == [other.id, talk.id]


def test_taking_back_a_turn_takes_back_what_was_thought_of_it(talk):
    talk.judge(1, "good")
    talk.judge(3, "bad")
    gone = talk.cut(2)
    assert [turn.role for turn in gone] == ["user", "assistant"]
    assert talk.opinions == {1: "good"} and len(talk.turns) == 2
