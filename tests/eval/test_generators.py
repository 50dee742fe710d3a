import json

import pytest

from voicetextblender.audio import save
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.records import Records, load_clips
from voicetextblender.eval.generators import FROM_A_FILE, GENERATORS, make


@pytest.fixture(scope="module")
def source(tmp_path_factory, sound):
    """Four clips, of which two say the same in two languages; and the same, typed."""
    folder = tmp_path_factory.mktemp("source")
    lines = {"asr": [], "typed": []}
    for id, lang in (("a-es-yes", "es"), ("a-fr-yes", "fr"), ("a-en-no", "en"), ("a-en-go", "en")):
        save(folder / f"{id}.flac", sound(0.5))
        clip = Audio(f"{id}.flac", text="Word.")
        for kind, part in (("asr", clip), ("typed", "Word?")):
            turns = (user(part), assistant("Word."))
            lines[kind].append(to_line(Conversation(id, turns, kind, lang)) + "\n")
    for kind in lines:
        (folder / f"{kind}.jsonl").write_text("".join(lines[kind]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "ten-minutes"])
def test_every_generator_makes_items_with_clips_that_can_be_heard(name, source, tmp_path, voice):
    of = str(source / ("typed.jsonl" if name == "spoken" else "asr.jsonl"))
    make(name, tmp_path, 1, 4, ("fake",), of if name in FROM_A_FILE else None)
    records = Records(str(tmp_path / "items.jsonl"))
    items = [records[place] for place in range(len(records))]
    assert len({item.id for item in items}) == len(items) > 0
    for item in items:
        assert item.messages[-1].role == "assistant" and item.clips
        assert all(len(samples) for samples in load_clips(item))
        assert not item.typed().clips


def test_as_many_of_the_source_are_used_as_asked_for_evenly_spaced(source, tmp_path):
    make("wordings", tmp_path, 0, 2, source=str(source / "asr.jsonl"))
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a-es-yes", "a-en-no"]


def test_an_unknown_generator_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match="'name' is no generator; use one of names, "):
        make("name", tmp_path, 0)


def test_a_generator_needs_its_source_and_no_other_takes_one(tmp_path):
    with pytest.raises(ValueError, match="the generator 'pairs' needs 'path'"):
        make("pairs", tmp_path, 0)
    with pytest.raises(ValueError, match="the generator 'sums' takes no 'path'"):
        make("sums", tmp_path, 0, source="x.jsonl")
