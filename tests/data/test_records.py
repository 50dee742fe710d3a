import json
import pickle

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio
from voicetextblender.data import records as records_module
from voicetextblender.data.records import Records, load_clips


def line(name, *clips):
    parts = [{"type": "audio", "audio": clip} for clip in clips] or "hi"
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "ja — 好"}]
    return json.dumps({"id": name, "messages": talk}, ensure_ascii=False)


@pytest.fixture
def write(tmp_path):
    def lines(file, *lines, end="\n"):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(("\n".join(lines) + end).encode())
        return path

    return lines


def test_a_conversation_is_read_by_its_number(write):
    records = Records(str(write("a.jsonl", *(line(f"c{n}") for n in range(50)))))
    assert len(records) == 50
    assert [records[n].id for n in (49, 0, 7)] == ["c49", "c0", "c7"]
    assert [conversation.id for conversation in records] == [f"c{n}" for n in range(50)]


def test_blank_lines_do_not_count(write):
    records = Records(str(write("a.jsonl", "", line("a"), "  ", line("b"), end="\n\n")))
    assert [conversation.id for conversation in records] == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_the_last_line_may_end_in_any_way(write, end):
    assert Records(str(write("a.jsonl", line("a"), line("b"), end=end)))[1].id == "b"


def test_the_files_of_a_glob_follow_each_other_by_name(write, tmp_path):
    write("b.jsonl", line("b0"), line("b1")), write("a.jsonl", line("a0"))
    records = Records(str(tmp_path / "*.jsonl"))
    assert [conversation.id for conversation in records] == ["a0", "b0", "b1"]
    (tmp_path / "folder.jsonl").mkdir()
    assert len(Records(str(tmp_path / "*.jsonl"))) == 3


def test_a_file_whose_name_looks_like_a_glob_is_still_a_file(write):
    assert len(Records(str(write("a[1].jsonl", line("a"))))) == 1


def test_clips_are_found_beside_their_file(write, tmp_path):
    records = Records(
        str(write("set/a.jsonl", line("a", "clips/1.wav", "s.tar#2.wav", "/x/3.wav")))
    )
    assert [clip.audio for clip in records[0].clips] == [
        str(tmp_path / "set/clips/1.wav"),
        str(tmp_path / "set/s.tar#2.wav"),
        "/x/3.wav",
    ]


def test_everything_else_of_a_record_is_kept(write):
    part = {"type": "audio", "audio": "/a.wav", "start": 1.5, "duration": 2, "text": "x"}
    record = {
        "id": "a",
        "task": "asr",
        "lang": "en",
        "messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "x"}],
        "meta": {"speaker": "s"},
    }
    conversation = Records(str(write("a.jsonl", json.dumps(record))))[0]
    assert conversation.clips == (Audio("/a.wav", 1.5, 2.0, "x"),)
    assert (conversation.task, conversation.lang) == ("asr", "en")
    assert conversation.meta == {"speaker": "s"}


def test_the_clips_of_a_conversation_are_decoded(write, tmp_path):
    path = write("a.jsonl", line("a", "1.wav", "2.wav"))
    for n in (1, 2):
        audio.save(tmp_path / f"{n}.wav", np.full(100 * n, 0.1, np.float32))
    clips = load_clips(Records(str(path))[0])
    assert [clip.shape for clip in clips] == [(100,), (200,)]


def test_a_bad_line_is_named_by_file_and_line(write):
    records = Records(str(write("a.jsonl", line("a"), "", "", "{oops", line("b"))))
    with pytest.raises(ValueError, match=r"a.jsonl:4: not JSON"):
        records[1]
    assert records[2].id == "b"


def test_a_line_that_is_not_utf8_is_named_by_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\n" + '{"id": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.jsonl:2: not UTF-8 .*save the file as UTF-8"):
        Records(str(tmp_path / "a.jsonl"))[0]


def test_a_number_beyond_the_end_is_an_index_error(write):
    with pytest.raises(IndexError, match="conversation 1 of 1"):
        Records(str(write("a.jsonl", line("a"))))[1]


def test_a_source_without_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none-\*.jsonl: no such file; name a JSONL file"):
        Records(str(tmp_path / "none-*.jsonl"))


def test_a_source_without_a_conversation_is_refused(write):
    with pytest.raises(ValueError, match="a.jsonl: no conversations in it"):
        Records(str(write("a.jsonl", "", " ")))


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "there is no such file"), (b"", "is empty"), (b"not a sound", "cannot be read")],
)
def test_a_clip_that_cannot_be_decoded_names_itself_and_its_conversation(
    write, tmp_path, data, message
):
    records = Records(str(write("a.jsonl", line("talk", "1.wav"))))
    if data is not None:
        (tmp_path / "1.wav").write_bytes(data)
    with pytest.raises(ValueError, match=f"conversation 'talk': .*1.wav: {message}"):
        load_clips(records[0])


def test_lines_are_found_across_the_blocks_in_which_a_file_is_read(write, monkeypatch):
    monkeypatch.setattr(records_module, "_BLOCK", 100)
    records = Records(str(write("a.jsonl", *(line(f"c{n}") for n in range(30)), "")))
    assert [conversation.id for conversation in records] == [f"c{n}" for n in range(30)]


def test_records_travel_to_another_process_as_a_name(write):
    records = Records(str(write("a.jsonl", *(line(f"c{n}") for n in range(1000)))))
    sent = pickle.dumps(records)
    assert len(sent) < 300 and pickle.loads(sent)[7].id == "c7"


def test_rows_of_parquet_are_conversations_too(write, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"conversation": [line("a", "1.wav"), "{oops", line("c")]})
    parquet.write_table(table, tmp_path / "b.parquet", row_group_size=2)
    write("a.jsonl", line("first"))
    records = Records(str(tmp_path / "*.[jp]*"))
    assert [records[n].id for n in (0, 1, 3)] == ["first", "a", "c"]
    assert records[1].clips[0].audio == str(tmp_path / "1.wav")
    with pytest.raises(ValueError, match=r"b.parquet, row 1: not JSON"):
        records[2]
    assert records.labels(("file", "task"))[1].tolist() == [0, 1, 1, 1]
