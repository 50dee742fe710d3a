"""Chats with audio, in the forms of OpenAI, ShareGPT, LLaMA-Factory and ms-swift."""

import base64
import json

import pytest

from voicetextblender.chat import Audio, Text
from voicetextblender.data.import_messages import import_messages
from voicetextblender.data.importing import Given

ANSWER = {"role": "assistant", "content": "A dog."}


def write(path, entries):
    path.write_text(json.dumps(entries, ensure_ascii=False), "utf-8")
    return path


def user(*content):
    return {"role": "user", "content": list(content)}


@pytest.fixture
def clips(tmp_path, write_wav):
    return [write_wav(tmp_path / f"clips/{name}.wav") for name in "ab"]


def form(conversation):
    """Return each turn as strings, a clip by its name in brackets."""
    return [
        [p.text if isinstance(p, Text) else f"[{p.audio.rpartition('/')[2]}]" for p in turn.parts]
        for turn in conversation.messages
    ]


def test_marks_of_llama_factory_become_clips_in_their_places(tmp_path, clips, read_back):
    mixed = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "First <audio> then<audio>which?"},
        ANSWER,
        {"role": "user", "content": "Sure?"},
        ANSWER,
    ]
    audios = ["clips/a.wav", "clips/b.wav"]
    sharegpt = {
        "system": "Be kind.",
        "conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "Hm."}],
        "audios": "clips/a.wav",
    }
    text = {"messages": [{"role": "user", "content": "Hi, what is <audio>?"}, ANSWER]}
    entries = [{"messages": mixed, "audios": audios, "id": "m"}, sharegpt, text]
    report = import_messages(write(tmp_path / "chat.json", entries), tmp_path / "out")
    assert report.kept == 3 and report.dropped == {}
    m = read_back(tmp_path / "out/mixed.jsonl")["m"]
    assert m.task == "mixed" and form(m)[:2] == [
        ["Be short."],
        ["First ", "[a.wav]", " then", "[b.wav]", "which?"],
    ]
    assert form(read_back(tmp_path / "out/sqa.jsonl")["chat-2"]) == [
        ["Be kind."],
        ["[a.wav]"],
        ["Hm."],
    ]
    text = read_back(tmp_path / "out/text.jsonl")["chat-3"]
    assert form(text) == [["Hi, what is <audio>?"], ["A dog."]]


def test_clips_of_ms_swift_without_a_mark_open_the_first_user_turn(tmp_path, clips, read_back):
    entry = {"messages": [{"role": "user", "content": "Who barks?"}, ANSWER]}
    (tmp_path / "swift.jsonl").write_text(json.dumps(entry | {"audios": [str(clips[0])]}) + "\n")
    import_messages(tmp_path / "swift.jsonl", tmp_path / "out", Given(lang="en", license="MIT"))
    (conversation,) = read_back(tmp_path / "out/sqa.jsonl").values()
    assert form(conversation) == [["[a.wav]", "Who barks?"], ["A dog."]]
    assert (conversation.lang, conversation.meta) == ("en", {"license": "MIT"})
    assert '"../clips/a.wav"' not in (tmp_path / "swift.jsonl").read_text()
    assert '"../clips/a.wav"' in (tmp_path / "out/sqa.jsonl").read_text()


def test_content_parts_name_a_clip_or_hold_it(tmp_path, clips, read_back):
    data = base64.b64encode(clips[0].read_bytes()).decode()
    parts = [
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/x-wav;base64,{data}"}},
        {"type": "audio_url", "audio_url": {"url": clips[1].as_uri()}},
        {"type": "audio", "audio": "clips/b.wav", "text": "Woof."},
        {"type": "text", "text": "What is it?"},
    ]
    write(tmp_path / "openai.json", [{"messages": [user(*parts), ANSWER]}])
    import_messages(tmp_path / "openai.json", tmp_path / "out")
    (conversation,) = read_back(tmp_path / "out/sqa.jsonl").values()
    *heard, question = conversation.messages[0].parts
    assert question == Text("What is it?") and all(isinstance(clip, Audio) for clip in heard)
    written = sorted((tmp_path / "out/clips").iterdir())
    assert [path.read_bytes() for path in written] == [clips[0].read_bytes()] * 2
    assert heard[3].text == "Woof."


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"messages": []}, "no 'messages' or 'conversations'"),
        ({"messages": ["Hi"]}, "a message is not a JSON object"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "role 'tool'"),
        ({"messages": [{"role": "user", "content": []}]}, "a message without content"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no assistant turn"),
        ({"messages": [ANSWER], "task": "../x"}, "'task' is not a word"),
        ({"messages": [user("Hi"), ANSWER]}, "content without a type"),
        ({"messages": [user({"type": "video"}), ANSWER]}, "content of type 'video'"),
        ({"messages": [user({"type": "audio"}), ANSWER]}, "no audio"),
        ({"messages": [ANSWER], "audios": ["gone.wav"]}, "no such audio file"),
        ({"messages": [ANSWER], "audios": ["https://a.b/c.wav"]}, "audio is at a web address"),
        ({"messages": [ANSWER], "audios": ["data:audio/wav;base64,!"]}, "audio is not base64"),
        ({"messages": [ANSWER], "audios": ["data:audio/.;base64,aa=="]}, "audio format '.'"),
        (
            {"messages": [user({"type": "text", "text": "<audio> <audio>"}), ANSWER]}
            | {"audio": "clips/a.wav"},
            "more <audio> than audios",
        ),
        (
            {"messages": [{"role": "gpt", "content": [{"type": "audio", "path": "clips/a.wav"}]}]},
            "audio outside user turns",
        ),
        ({"messages": [ANSWER], "audios": ["clips/a.wav"]}, "no user turn for the audio"),
        (
            {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}
            | {"audio": "data:audio/wav;base64,YQ=="},
            "audio cannot be read",
        ),
        ("Hi", "not a JSON object"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_a_conversation_is_counted(tmp_path, clips, entry, reason):
    good = {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}
    write(tmp_path / "chat.json", [good, entry])
    report = import_messages(tmp_path / "chat.json", tmp_path / "out")
    assert report.kept == 1 and report.dropped == {reason: 1}
    assert not list((tmp_path / "out").glob("clips/*"))


def test_what_is_no_file_of_chats_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file; name a .json or .jsonl"):
        import_messages(tmp_path, tmp_path / "out")
    (tmp_path / "bad.json").write_text("[{")
    with pytest.raises(ValueError, match="bad.json: is not JSON .*; export it again"):
        import_messages(tmp_path / "bad.json", tmp_path / "out")
    with pytest.raises(ValueError, match="holds no entries"):
        import_messages(write(tmp_path / "none.json", []), tmp_path / "out")
