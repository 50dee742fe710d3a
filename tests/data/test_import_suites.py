import json

import pytest

from voicetextblender import audio
from voicetextblender.data.importers import import_corpus
from voicetextblender.data.records import Records


@pytest.fixture
def clip(tmp_path, sound):
    (tmp_path / "wav").mkdir()
    audio.save(tmp_path / "wav/a.wav", sound(0.5))
    return "wav/a.wav"


def read(path):
    records = Records(str(path))
    return [records[place] for place in range(len(records))]


def test_voicebench_items_are_spoken_and_end_with_the_reference(tmp_path, clip):
    rows = [
        {"prompt": "Who wrote it?", "audio": clip, "reference": "Ann", "region": "usa"},
        {"prompt": "Why?", "audio": {"path": clip}, "output": "Because."},
        {"prompt": "What now?", "audio": clip},
    ]
    (tmp_path / "sd-qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = import_corpus("voicebench", tmp_path / "sd-qa.jsonl", tmp_path / "out")
    assert (made.kept, made.dropped) == (2, {"no reference answer": 1})
    first, second = read(tmp_path / "out/sd-qa.jsonl")
    assert (first.clips[0].text, first.meta) == ("Who wrote it?", {"region": "usa"})
    assert [one.messages[-1].parts[0].text for one in (first, second)] == ["Ann", "Because."]


def test_voicebench_is_read_from_parquet_with_the_audio_in_it(tmp_path, clip):
    arrow = pytest.importorskip("pyarrow")
    sound = {"bytes": (tmp_path / clip).read_bytes(), "path": "a.wav"}
    rows = [
        {"prompt": "Who wrote it?", "audio": sound, "reference": "Ann"},
        {"prompt": "Why?", "audio": {"bytes": None, "path": None}, "reference": "Because."},
    ]
    table = arrow.Table.from_pylist(rows)
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "sd-qa.parquet")
    made = import_corpus("voicebench", tmp_path / "sd-qa.parquet", tmp_path / "out")
    assert (made.kept, made.dropped) == (1, {"no audio": 1})
    (item,) = read(tmp_path / "out/sd-qa.jsonl")
    assert len(audio.load(item.clips[0].audio)) == 8000 and item.clips[0].text == "Who wrote it?"


def test_airbench_items_ask_about_a_recording_and_offer_choices(tmp_path, clip):
    row = {"path": "a.wav", "question": "Who speaks?", "answer_gt": "a man", "task_name": "gender"}
    rows = [
        row | {"path": clip, "choice_a": "a man", "choice_b": "a woman"},
        row | {"path": clip, "choice_a": "a dog", "choice_b": "a cat"},
        row | {"path": "gone.wav"},
    ]
    (tmp_path / "meta.json").write_text(json.dumps(rows))
    made = import_corpus("airbench", tmp_path / "meta.json", tmp_path / "out")
    assert made.dropped == {"no such audio file": 1, "the answer is none of the choices": 1}
    (item,) = read(tmp_path / "out/meta.jsonl")
    assert item.meta == {"task_name": "gender", "choices": ["a man", "a woman"]}
    assert item.messages[0].parts[0].text == "Who speaks?\nChoose one: a man, a woman.\n"


def test_a_suite_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing.json: there is no such file"):
        import_corpus("airbench", tmp_path / "nothing.json", tmp_path / "out")
