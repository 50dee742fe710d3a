from dataclasses import replace

import numpy as np
import pytest

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.records import Records
from voicetextblender.eval.checks import check
from voicetextblender.eval.probes import MADE_UP, WORDINGS, pairs, wordings
from voicetextblender.eval.speak import spoken, to_say, write_spoken
from voicetextblender.eval.suite import question, reference
from voicetextblender.text import transcribe_instruction

CLIP = Audio("clip.flac", text="Hola.")


def asr(id, lang, text):
    turns = (user(transcribe_instruction(lang), CLIP), assistant(text))
    return Conversation(id, turns, "asr", lang, {"speaker": "ann"})


@pytest.mark.parametrize("name", sorted(MADE_UP))
def test_a_probe_is_the_same_for_the_same_seed_alone(name):
    made = list(MADE_UP[name](8, 1))
    assert made == list(MADE_UP[name](8, 1)) != list(MADE_UP[name](8, 2))
    assert len({item.id for item in made}) == len(made) == 8


@pytest.mark.parametrize("name", sorted(MADE_UP))
def test_the_reference_of_a_probe_is_right_by_its_own_check_and_nothing_is_not(name):
    for item in MADE_UP[name](8, 0):
        assert check(item, reference(item)) == 1.0, item
        assert check(item, "") == check(item, "I do not know.") == 0.0, item


@pytest.mark.parametrize("name", sorted(MADE_UP))
def test_every_probe_has_a_clip_to_be_said_and_so_a_typed_twin(name):
    for item in MADE_UP[name](8, 0):
        assert item.clips and not any(clip.audio for clip in item.clips)
        assert not question(item).typed().clips


def test_a_name_is_asked_for_with_a_list_and_without():
    without, with_list = MADE_UP["names"](2, 0)
    assert without.clips == with_list.clips
    assert [without.meta["list"], with_list.meta["list"]] == ["without", "with"]
    (name,) = with_list.meta["check"][0]["any_of"]
    assert name in str(with_list.messages[0].parts[0]) and name in (with_list.clips[0].text or "")
    assert name not in str(without.messages[0].parts[0])


def test_wordings_ask_for_the_same_transcript_in_other_words():
    source = [asr(f"a-en-{n}", "en", "Hello.") for n in range(20)]
    made = list(wordings(source, 0))
    asked = {part.text for item in made for part in item.messages[0].parts} - {CLIP.text}
    assert asked <= set(WORDINGS) and len(asked) > 4
    assert [item.messages[-1] for item in made] == [item.messages[-1] for item in source]
    assert {item.messages[0].parts.index(CLIP) for item in made} == {0, 1}


def test_pairs_are_what_says_the_same_in_two_languages_of_which_the_second_is_not_english():
    source = [
        asr("a-es-yes", "es", "Sí."),
        asr("a-fr-yes", "fr", "Oui."),
        asr("a-en-yes", "en", "Yes."),
        asr("a-en-no", "en", "No."),
    ]
    made = {item.id: item for item in pairs(source, 0)}
    assert sorted(made) == [
        *("a-en-yes-to-es", "a-en-yes-to-fr", "a-es-yes-to-fr", "a-fr-yes-to-es"),
    ]
    item = made["a-es-yes-to-fr"]
    assert reference(item) == "Oui." and item.task == "ast" and item.lang == "es"
    assert item.meta == {"speaker": "ann", "target_lang": "fr"}
    assert "Spanish content to French" in str(item.messages[0].parts[0])


def test_a_spoken_twin_says_the_users_turns_and_keeps_the_rest():
    typed = Conversation("q", (user("One.\nTwo?"), assistant("Three."), user("Four?")))
    twin = spoken(typed)
    assert [clip.text for clip in twin.clips] == ["One. Two?", "Four?"]
    assert twin.messages[1] == typed.messages[1]
    with pytest.raises(ValueError, match="'q' has clips; only a typed one can be spoken"):
        spoken(twin)


def test_what_is_to_be_said_becomes_files_and_the_same_bytes_each_time(tmp_path, voice):
    items = [
        Conversation("one", (user("Hear:", to_say("Hello.")), assistant("Hi."))),
        Conversation("two", (user(to_say("A.", "B.")), assistant("C."))),
        Conversation("three", (user("Typed."), assistant("D."))),
    ]
    for folder in ("a", "b"):
        write_spoken(items, tmp_path / folder, ["fake"], seed=3)
    made = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*.*"))]
    assert [*map(str, made)] == ["clips/one-0.flac", "clips/two-0.flac", "items.jsonl"]
    assert all((tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in made)
    assert voice.said == [("Hello.", 3), ("A.", 3), ("B.", 3)] * 2
    records = Records(str(tmp_path / "a/items.jsonl"))
    assert [records[n].typed() for n in range(2)] == [
        replace(item.typed(), meta={"voice": "fake", "synthetic": True}) for item in items[:2]
    ]
    assert records[2] == items[2]


def test_a_second_speaker_is_the_same_voice_deeper_where_there_is_but_one(tmp_path, voice):
    item = Conversation("two", (user(to_say("AB.", "AB.")), assistant("C.")))
    write_spoken([item], tmp_path, ["fake"])
    samples = load(tmp_path / "clips/two-0.flac")
    loud = np.abs(samples) > 0
    starts = np.flatnonzero(np.diff(np.convolve(loud, np.ones(800), "same") > 0))
    first, second = starts[1] - starts[0], starts[3] - starts[2]
    assert second / first == pytest.approx(1 / 0.82, rel=0.05)


def test_a_clip_that_has_a_file_is_not_said(tmp_path, voice):
    write_spoken([asr("a", "es", "Hola.")], tmp_path, ["fake"])
    assert not voice.said and not list((tmp_path / "clips").iterdir())


@pytest.mark.parametrize("name", sorted(MADE_UP.keys() - {"formats", "names", "conflict"}))
def test_no_probe_is_answered_by_repeating_what_was_typed_or_said(name):
    for item in MADE_UP[name](24, 0):
        turns = item.messages[1:-1] if name == "recall" else item.messages[:-1]  # not the fact
        for text in (part.text or "" for turn in turns for part in turn.parts):
            assert check(item, text) == 0.0, item
