"""Spoken parts of text conversations."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.chat import Conversation, assistant, system, user
from voicetextblender.data.records import Records, load_clips
from voicetextblender.synth.mixed import FORMS, Mixed, draw_spans, sentences_to_speak
from voicetextblender.synth.plan import run
from voicetextblender.synth.speakers import Speakers

LONG = "I went home. It was late! Was anybody there? Nobody was. So I slept."
TURNS = (user(LONG), assistant("Good."), user("Wake me at six."), assistant("Ok."))
CHAT = Conversation("c", (system("Be brief."), *TURNS), meta={"license": "Apache-2.0"})
CODE = """Fix this, please. It prints nothing.

```python
def main(): return 1. Then more words follow here.
```
| a | b |
See https://example.org/a.html for more. Is it `x` or y? Use 3 * 4 = 12.
    indented code is not said
1. First point here
Thank you very much!"""


def spoken(text):
    return [text[start:stop] for run in sentences_to_speak(text) for start, stop in run]


def test_code_tables_links_and_formulas_are_not_spoken():
    assert spoken(CODE) == ["Fix this, please.", "It prints nothing.", "Thank you very much!"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One thing\nand another", ["One thing", "and another"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("Dr.", []),
        ("print(x)", []),
        ("Is 3.14 nearly pi?", ["Is 3.14 nearly pi?"]),
        ("", []),
    ],
)
def test_text_is_cut_into_sentences(text, sentences):
    assert spoken(text) == sentences


@given(st.text(alphabet="ab .!?\n`|", max_size=60))
def test_sentences_are_slices_in_order(text):
    ends = [0]
    for run_ in sentences_to_speak(text):
        for start, stop in run_:
            assert ends[-1] <= start < stop <= len(text)
            assert text[start:stop] == text[start:stop].strip()
            ends.append(stop)


def test_every_form_is_drawn_and_each_is_what_it_says():
    seen = {}
    for seed in range(80):
        form, spans = draw_spans(CHAT, np.random.default_rng(seed))
        seen.setdefault(form, []).append(spans)
        assert all(CHAT.messages[n].role == "user" and spans[n] for n in spans)
    assert set(seen) == set(FORMS)
    assert all(len(spans) == 1 for form in ("run", "spans", "turn") for spans in seen[form])
    assert all(len(spans) == 2 for spans in seen["turns"])
    assert {len(each) for spans in seen["spans"] for each in spans.values()} == {2, 3}
    assert {LONG[a:b] for spans in seen["turn"] for a, b in spans.get(1, ())} == {LONG}
    assert len({str(spans) for spans in seen["run"]}) > 5


def test_a_conversation_of_one_short_question_is_spoken_whole():
    chat = Conversation("q", (user(" Who are you? "), assistant("I am a model.")))
    for seed in range(9):
        form, spans = draw_spans(chat, np.random.default_rng(seed))
        assert form in ("run", "turn") and spans == {0: [(1, 13)]}


class FakeVoice:
    rate = 16_000

    def __init__(self, name):
        self.name = name

    def speak(self, text, seed, speed=1.0):
        if "slept" in text and self.name == "espeak:en-mute":
            raise ValueError(f"cannot say {text!r}")
        return np.full(int(0.05 * 16_000 * len(text)), 0.1, dtype=np.float32)


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.speakers.load_voice", FakeVoice)


def made(plan, out, max_drop=0.1):
    list(run(plan, out, max_drop=max_drop))
    records = Records(f"{out}/*.jsonl")
    return [records[n] for n in range(len(records))]


def test_the_typed_twin_is_the_conversation_it_was_made_from(tmp_path):
    chats = (CHAT, Conversation("k", (user(CODE), assistant("Done."))))
    voices = ("espeak:en", "espeak:en-us")
    found = made(Mixed(chats, Speakers(voices), variants=20), tmp_path)
    assert len(found) == 40
    for conversation in found:
        source = chats[0] if conversation.meta["made_from"] == "c" else chats[1]
        assert conversation.clips and conversation.task == "mixed"
        for turn, old in zip(conversation.typed().messages, source.messages, strict=True):
            assert turn.role == old.role and turn.text.split() == old.text.split()
        clips = load_clips(conversation)
        for clip, samples in zip(conversation.clips, clips, strict=True):
            assert clip.duration == pytest.approx(len(samples) / 16_000, abs=0.002)
        assert conversation.meta["voice"] in (*voices, "several")
        assert len(conversation.meta["voices"]) == len(conversation.clips)
    assert {c.meta["license"] for c in found if c.meta["made_from"] == "c"} == {"Apache-2.0"}
    assert {c.meta["voice"] for c in found} == {*voices, "several"}
    assert {c.meta["form"] for c in found} == set(FORMS)


def test_a_voice_that_fails_on_some_text_is_counted_and_the_rest_is_made(tmp_path):
    plan = Mixed((CHAT,), Speakers(("espeak:en-mute",)), variants=40)
    found = made(plan, tmp_path, max_drop=1)
    told = json.loads((tmp_path / "report.json").read_text())
    (drop,) = told["dropped"]
    assert (drop["by"], drop["reason"]) == ("espeak:en-mute", "not able to say it")
    assert 0 < drop["count"] == 40 - len(found)


def test_what_is_heard_otherwise_is_dropped_and_conditions_do_not_matter_to_it(
    tmp_path, monkeypatch
):
    class Deaf:
        def recognise(self, clips, lang):
            assert all(clip.max() == np.float32(0.1) for clip in clips)
            return ["wake me at six"] * len(clips)

    monkeypatch.setattr("voicetextblender.synth.check.load_recogniser", lambda _: Deaf())
    plan = Mixed((CHAT,), Speakers(("espeak:en",), check="deaf", augment=1.0), variants=30)
    found = made(plan, tmp_path, max_drop=1)
    assert {clip.text for c in found for clip in c.clips} == {"Wake me at six."}
    assert all("gain_db" in each for c in found for each in c.meta["conditions"])


def test_conversations_with_nothing_to_say_are_left_out():
    mute = Conversation("m", (user("```x```"), assistant("1")))
    assert Mixed((CHAT, mute)).chats == (CHAT,)
    with pytest.raises(ValueError, match="no conversation has a sentence that can be spoken"):
        Mixed((mute,))


def test_only_the_forms_that_are_asked_for_are_made_and_unknown_ones_are_refused():
    found = {draw_spans(CHAT, np.random.default_rng(n), ("turn", "spans"))[0] for n in range(20)}
    assert found <= {"turn", "spans"} and found
    typed = Conversation("k", (user(CODE), assistant("Done.")))
    assert Mixed((CHAT, typed), forms=("run",)).chats == (CHAT, typed)
    with pytest.raises(ValueError, match="no conversation has a sentence that can be spoken"):
        Mixed((typed,), forms=("turn",))
    with pytest.raises(ValueError, match="form 'half' is unknown; use run, spans, turn, turns"):
        Mixed((CHAT,), forms=("half",))
