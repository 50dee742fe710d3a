import numpy as np
import pytest

from voicetextblender import cache
from voicetextblender.cache import cache_folder, index_of

made = []


def bytes_of(path):
    made.append(path)
    return np.frombuffer(path.read_bytes(), np.uint8)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("VTB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 4)
    made.clear()
    cache._index.cache_clear()  # as in a new process
    (tmp_path / "data").write_bytes(b"12345")
    return tmp_path / "data"


def test_the_index_of_a_large_file_is_made_once_and_mapped_in_the_next_process(path):
    first = index_of(path, bytes_of)
    cache._index.cache_clear()
    again = index_of(path, bytes_of)
    assert first.tolist() == again.tolist() == list(b"12345")
    assert isinstance(again, np.memmap) and len(made) == 1


def test_a_small_file_leaves_nothing_behind(path):
    path.write_bytes(b"123")
    assert index_of(path, bytes_of).tolist() == list(b"123")
    assert not cache_folder("index").exists()


def test_a_file_that_changed_is_indexed_anew(path):
    index_of(path, bytes_of)
    path.write_bytes(b"123456")
    assert index_of(path, bytes_of).tolist() == list(b"123456")


def test_a_cache_that_cannot_be_written_costs_time_and_not_the_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("VTB_CACHE", str(path))
    assert index_of(path, bytes_of).tolist() == list(b"12345")
