import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.parquet import parquet_rows, parquet_value

pyarrow = pytest.importorskip("pyarrow")
from pyarrow.parquet import write_table  # noqa: E402


@pytest.fixture
def path(tmp_path, sound):
    """Five rows in groups of two, with audio as Hugging Face writes it."""
    audio.save(tmp_path / "a.wav", sound(0.5))
    clip = {"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}
    table = pyarrow.table(
        {"text": list("abcde"), "n": range(5), "audio": [clip] * 4 + [{"bytes": None}]}
    )
    write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    return tmp_path / "rows.parquet"


def test_any_value_is_read_by_its_row(path):
    assert parquet_rows(path) == 5
    assert [parquet_value(path, "text", row) for row in (4, 0, 3, 1, 2)] == [
        b"e", b"a", b"d", b"b", b"c"
    ]  # fmt: skip


def test_audio_in_a_column_is_a_clip_like_any_other(path, sound):
    clip = audio.load(f"{path}#audio/3", start=0.1, duration=0.2)
    np.testing.assert_allclose(clip, sound(0.5)[1600:4800], atol=1e-4)
    assert audio.probe_duration(f"{path}#audio/0") == 0.5


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("audio/5", "has 5 rows, so no row 5"),
        ("sound/1", "has no column 'sound', but text, n, audio"),
        ("n/1", "column 'n' holds no text and no bytes in row 1, but int"),
        ("audio/4", "holds no text and no bytes in row 4"),
        ("7", "after '#' must stand COLUMN/ROW, such as audio/17"),
    ],
)
def test_a_value_that_is_not_there_is_refused_by_name(path, place, message):
    with pytest.raises(ValueError, match=f"rows.parquet.*{message}"):
        audio.load(f"{path}#{place}")


def test_a_file_that_is_no_parquet_is_refused(path):
    path.write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="rows.parquet: is no Parquet file"):
        parquet_rows(path)
