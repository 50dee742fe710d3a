import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.chat import (
    Audio,
    Conversation,
    Text,
    Turn,
    assistant,
    from_json,
    parse_line,
    system,
    to_line,
    user,
)

seconds = st.floats(0, 1e6, allow_nan=False)
texts = st.text(max_size=20)
clips = st.builds(
    Audio,
    audio=st.text(min_size=1, max_size=20),
    start=seconds,
    duration=st.none() | st.floats(1e-3, 1e6),
    text=st.none() | texts,
)
user_turns = st.builds(
    lambda parts: Turn("user", tuple(parts)),
    st.lists(st.builds(Text, texts) | clips, min_size=1, max_size=4),
)
turns = user_turns | st.builds(assistant, texts) | st.builds(system, texts)
conversations = st.builds(
    Conversation,
    id=st.text(min_size=1, max_size=10),
    messages=st.lists(turns, min_size=1, max_size=4).map(tuple),
    task=st.text(min_size=1, max_size=5),
    lang=st.none() | texts,
    meta=st.dictionaries(texts, st.integers() | texts, max_size=2),
)


@given(conversations)
def test_a_conversation_survives_its_json_line(conversation):
    line = to_line(conversation)
    assert "\n" not in line
    assert parse_line(line, "f:1") == conversation


def test_clips_are_listed_in_the_order_in_which_they_are_heard():
    a, b, c = Audio("a.wav"), Audio("b.wav"), Audio("c.wav")
    conversation = Conversation("x", (user(a, "and", b), assistant("yes"), user(c)))
    assert conversation.clips == (a, b, c)
    assert conversation.messages[0].clips == (a, b)


def test_the_typed_twin_has_the_words_of_each_clip_in_its_place():
    spoken = Conversation("x", (user("Say:", Audio("a.wav", text="Hello.")), assistant("Hello.")))
    assert spoken.typed() == Conversation("x", (user("Say:", "Hello."), assistant("Hello.")))


def test_a_clip_without_words_has_no_typed_twin():
    with pytest.raises(ValueError, match="conversation 'x': clip a.wav has no 'text'"):
        Conversation("x", (user(Audio("a.wav")),)).typed()


def test_a_line_that_is_not_json_is_refused_with_its_place():
    with pytest.raises(ValueError, match="f.jsonl:7: not JSON .*at column 8"):
        parse_line('{"id": x}', "f.jsonl:7")


TALK = {"id": "a", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "a conversation must be a JSON object, not list"),
        (TALK | {"taks": "asr"}, "unknown key 'taks'; a conversation has id, lang, messages"),
        (TALK | {"id": 7}, "'id' must be a non-empty string, not int '7'"),
        (TALK | {"messages": []}, "conversation 'a': 'messages' must be a non-empty list"),
        ({"id": "a"}, "'messages' must be a non-empty list, not missing"),
        (TALK | {"task": ""}, "'task' must be a word"),
        (TALK | {"lang": 1}, "'lang' must be a language tag"),
        (TALK | {"meta": "x"}, "'meta' must be a JSON object"),
    ],
)
def test_a_record_that_is_no_conversation_is_refused(record, message):
    with pytest.raises(ValueError, match=f"f:1: .*{message}"):
        from_json(record, "f:1")


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("hi", "message 0: a message must be an object with 'role' and 'content' only"),
        ({"role": "user", "content": "a", "name": "b"}, "'role' and 'content' only"),
        ({"role": "bot", "content": "a"}, "role 'bot' is not one of system, user, assistant"),
        ({"role": "user", "content": []}, "'content' must be a string or a non-empty list"),
    ],
)
def test_a_message_that_is_no_turn_is_refused(turn, message):
    with pytest.raises(ValueError, match=message):
        from_json({"id": "a", "messages": [turn]}, "f:1")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("hi", "part 0: a part must be an object, not str"),
        ({"type": "text", "text": 1}, "a text part must have 'text', a string"),
        ({"type": "text", "text": "a", "lang": "en"}, "and no other key"),
        ({"type": "image"}, "part type 'image' is not one of text, audio"),
        ({"type": "audio", "audio": "a", "end": 1}, "unknown key 'end'; an audio part has"),
        ({"type": "audio"}, "'audio' must be the path of a file, not missing"),
        ({"type": "audio", "audio": "a", "text": 1}, "'text' must be what is said"),
        ({"type": "audio", "audio": "a", "start": -1}, "'start' is -1; it must be seconds"),
        ({"type": "audio", "audio": "a", "start": True}, "'start' is True"),
        ({"type": "audio", "audio": "a", "duration": 0}, "'duration' is 0; .* more than 0"),
        ({"type": "audio", "audio": "a", "duration": float("inf")}, "'duration' is inf"),
    ],
)
def test_a_part_that_is_neither_text_nor_clip_is_refused(part, message):
    record = {"id": "a", "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(ValueError, match=message):
        from_json(record, "f:1")


def test_only_a_user_turn_holds_audio():
    turn = {"role": "assistant", "content": [{"type": "audio", "audio": "a.wav"}]}
    line = json.dumps({"id": "a", "messages": [turn]})
    with pytest.raises(ValueError, match="audio in a assistant turn has no slot"):
        parse_line(line, "f:1")
