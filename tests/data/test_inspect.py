import io
import json

import pytest
from rich.console import Console

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.inspect import facts, inspect, read_held_out, show
from voicetextblender.prompt import Prompter

SPEAKER = {"speaker": "ada", "license": "CC0-1.0", "source": "calls"}
VOICE = {"voice": "hibari", "synthetic": True}


@pytest.fixture
def write(tmp_path, sound):
    """Writes conversations beside half a second and a quarter of one."""
    audio.save(tmp_path / "half.wav", sound(0.5))
    audio.save(tmp_path / "quarter.wav", sound(0.25, 1))
    (tmp_path / "broken.wav").write_bytes(b"no sound")

    def lines(*conversations, name="a.jsonl"):
        (tmp_path / name).write_text("\n".join(map(to_line, conversations)))
        return str(tmp_path / name)

    return lines


def asr(name, clip, said="Press six.", **others):
    settings = {"task": "asr", "lang": "en", "meta": SPEAKER} | others
    heard = clip if isinstance(clip, Audio) else Audio(clip, text=said)
    return Conversation(name, (user("Transcribe.", heard), assistant(said)), **settings)


def failed(found):
    return {check: ids for check, ids in found.failed.items() if ids}


def test_everything_is_counted_once(write):
    found = inspect(
        [
            write(
                asr("a", "half.wav"),
                asr("b", "quarter.wav", "Eins zwei drei.", lang="de", meta=VOICE),
                Conversation("c", (user("Why is that so?"), assistant("Because."))),
            )
        ]
    )
    assert (found.whole.conversations, found.whole.clips) == (3, 2)
    assert found.whole.seconds == pytest.approx(0.75)
    assert {key: s.conversations for key, s in found.by("task").items()} == {
        ("asr",): 2,
        ("text",): 1,
    }
    by_speech = {key: share.seconds for key, share in found.by("speech", "voice").items()}
    assert by_speech == {
        ("real", "ada"): 0.5,
        ("synthetic", "hibari"): 0.25,
        ("text only", "text only"): 0.0,
    }
    assert (found.text_tokens.total, found.answer_tokens.total) == (3 + 4 + 5, 2 + 3 + 1)
    assert found.answer_tokens.percentiles[::2] == (1, 2, 3)
    assert found.clip_s and found.clip_s.percentiles[::4] == (0.25, 0.5)
    assert failed(found) == {}


def test_the_facts_add_up_to_the_whole_however_they_are_grouped(write):
    found = inspect([write(asr("a", "half.wav"), asr("b", "quarter.wav", meta={}))])
    for names in (("task",), ("licence", "source"), ("language", "voice", "speech")):
        shares = found.by(*names).values()
        assert sum(share.conversations for share in shares) == 2
        assert sum(share.seconds for share in shares) == found.whole.seconds


@pytest.mark.parametrize(
    ("meta", "speech"),
    [
        ({}, "unstated"),
        ({"speaker": "ada"}, "real"),
        ({"voice": "hibari"}, "synthetic"),
        ({"speaker": "ada", "synthetic": True}, "synthetic"),
        ({"voice": "alto", "synthetic": False}, "real"),
    ],
)
def test_whether_speech_is_real_is_stated_never_guessed(meta, speech):
    assert facts(asr("a", "a.wav", meta=meta)).speech == speech


def test_clips_without_sound_are_named_and_give_no_hours(write):
    found = inspect(
        [
            write(
                asr("gone", "gone.wav", "a"),
                asr("broken", "broken.wav", "b"),
                asr("short", Audio("half.wav", 0.25, 9.0), "c"),
                asr("after", Audio("half.wav", 2.0), "d"),
            )
        ]
    )
    assert failed(found) == {
        "missing audio": ("gone",),
        "broken audio": ("broken",),
        "clip past the end": ("short", "after"),
    }
    assert found.whole.seconds == pytest.approx(0.25)


def test_data_without_any_sound_has_no_clip_lengths(write):
    assert inspect([write(asr("gone", "gone.wav"))]).clip_s is None


def test_the_same_words_and_the_same_clip_are_found_again(write):
    found = inspect(
        [
            write(
                asr("a", "half.wav"),
                asr("b", "quarter.wav", "Press  six."),
                asr("c", "./half.wav", "Other words."),
                asr("d", "half.wav", task="sqa"),  # another task may use the same clip
            )
        ]
    )
    assert failed(found) == {"duplicate": ("b",), "same clip twice": ("c",)}


def test_overlap_is_any_equal_sentence_or_clip(write):
    path = write(
        asr("a", "half.wav", "Hello. PRESS SIX!"),
        asr("b", "quarter.wav", "Press sixty."),
        Conversation("c", (user("Press six?"), assistant("No."))),
        asr("d", "broken.wav", "Nothing alike."),
    )
    test = write(asr("t", "gone.wav"), asr("u", "broken.wav", "Unlike."), name="test.jsonl")
    found = inspect([path], held_out=read_held_out(test))
    assert found.failed["in the test set"] == ("a", "c", "d")


def test_a_check_that_was_not_made_is_not_reported(write):
    found = inspect([write(asr("a", "half.wav"))])
    assert not {"in the test set", "no prompt"} & found.failed.keys()


def test_with_a_tokenizer_lengths_are_its_tokens(write, processor):
    prompter = Prompter(processor.tokenizer)
    conversation = asr("a", "half.wav")
    unanswered = Conversation("b", (user("Hm."),))
    found = inspect([write(conversation, unanswered)], prompter, "tokens of tiny")
    prompt = prompter.encode(conversation)
    assert found.text_tokens.percentiles[-1] == len(prompt.ids) - 1  # the slot is no text
    assert found.answer_tokens.percentiles[-1] == sum(label >= 0 for label in prompt.labels)
    assert failed(found) == {"no prompt": ("b",)}


def test_json_holds_what_the_tables_hold(write):
    found = inspect([write(asr("a", "half.wav"), asr("b", "half.wav", "x"))])
    record = json.loads(json.dumps(found.to_json()))
    assert record["conversations"] == 2
    assert record["voice"] == {"ada": {"conversations": 2, "clips": 2, "hours": 0.00028}}
    assert record["clip_s"] == {
        "total": 1, "min": 0.5, "p5": 0.5, "median": 0.5, "p95": 0.5, "max": 0.5
    }  # fmt: skip
    assert record["failed"]["same clip twice"] == ["b"]


def test_text_of_the_data_neither_styles_nor_steers_the_terminal(write):
    out = io.StringIO()
    meta = {"speaker": "[red]a\x1b[2J"}
    show(inspect([write(asr("a", "half.wav", meta=meta))]), Console(file=out, width=100))
    assert "[red]a" in out.getvalue() and "\x1b" not in out.getvalue()
    assert "1 conversations, 1 clips, 0.000 h" in out.getvalue()


def test_progress_ends_with_all(write):
    shares = []
    inspect([write(asr("a", "half.wav")), write(asr("b", "half.wav"))], progress=shares.append)
    assert shares == [0.5, 1.0]


def test_a_path_without_conversations_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file; name a JSONL file"):
        inspect([str(tmp_path / "none.jsonl")])
