import glob
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, parse_line
from voicetextblender.synth import shards
from voicetextblender.synth.asr import PER_SHARD, SpokenSentences, read_sentences, speak
from voicetextblender.synth.shards import make_shards
from voicetextblender.synth.voices import load_voice

pytest.importorskip("hibari")
SENTENCES = tuple(f"We saw {animal}s here." for animal in ("cat", "dog", "cow", "fox", "hen"))


def run(spoken, out, workers=1):
    return list(speak(spoken, out, workers))


def conversations(out):
    """Read them as the loader does: files whose name begins with a dot are not seen."""
    paths = sorted(glob.glob(f"{out}/*.jsonl"))
    lines = [line for path in paths for line in Path(path).read_text().splitlines()]
    return [parse_line(line, "here") for line in lines]


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def test_every_sentence_is_spoken_once_and_the_clips_are_as_long_as_they_say(tmp_path):
    spoken = SpokenSentences(SENTENCES, longest_run=2)
    assert run(spoken, tmp_path)[-1] == (len(spoken.runs()), len(spoken.runs()))
    made = conversations(tmp_path)
    assert " ".join(c.clips[0].text or "" for c in made) == " ".join(SENTENCES)
    for conversation in made:
        clip = conversation.clips[0]
        samples = audio.load(tmp_path / clip.audio)
        assert clip.duration == pytest.approx(len(samples) / audio.SAMPLE_RATE, abs=0.002)
        assert np.abs(samples).max() > 0.05
        assert conversation.meta["synthetic"] is True


def test_the_bytes_depend_on_the_seed_alone_not_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("voicetextblender.synth.asr.PER_SHARD", 2)
    spoken = SpokenSentences(SENTENCES)
    run(spoken, tmp_path / "one", workers=1)
    run(spoken, tmp_path / "two", workers=2)
    run(SpokenSentences(SENTENCES, seed=1), tmp_path / "other")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_a_stopped_run_makes_only_what_is_missing_and_ends_with_the_same_bytes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("voicetextblender.synth.asr.PER_SHARD", 2)
    spoken = SpokenSentences(SENTENCES)
    run(spoken, tmp_path)
    whole = digests(tmp_path)
    (tmp_path / "shard-00001.jsonl").unlink()  # as if it had been killed before the rename
    untouched = (tmp_path / "shard-00000.tar").stat().st_mtime_ns
    assert run(spoken, tmp_path)[0] == (3, 5)
    assert digests(tmp_path) == whole
    assert (tmp_path / "shard-00000.tar").stat().st_mtime_ns == untouched


def _fails(item):
    raise ValueError(f"item {item} cannot be spoken")


def test_a_failing_item_ends_the_run_and_leaves_no_shard_that_looks_complete(tmp_path):
    with pytest.raises(ValueError, match="item 0 cannot be spoken"):
        list(make_shards(tmp_path, 3, 2, _fails, workers=1))
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_draft_left_by_a_killed_run_is_not_read_as_data(tmp_path):
    (tmp_path / f".{shards.shard_name(0)}-1.jsonl").write_text("half a li")
    run(SpokenSentences(SENTENCES[:1]), tmp_path)
    assert len(conversations(tmp_path)) == 1 <= PER_SHARD


def test_sentences_are_read_plain_or_gzipped_and_an_empty_file_is_refused(tmp_path):
    plain, zipped, empty = (tmp_path / name for name in ("a.txt", "a.txt.gz", "b.txt"))
    plain.write_text("One.\n\n  Two.  \n")
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    empty.write_text("\n \n")
    assert read_sentences(plain) == read_sentences(zipped) == ("One.", "Two.")
    with pytest.raises(ValueError, match=r"b\.txt: no sentences in it; write one on each line"):
        read_sentences(empty)


def test_a_voice_says_the_same_for_the_same_seed_and_refuses_what_it_cannot_say():
    voice = load_voice("hibari")
    first, again = (voice.speak("Good morning.", seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(voice.speak("Good morning.", seed=3, speed=2.0)) < len(first)
    with pytest.raises(ValueError, match="voice 'hibari' says nothing for '你好'"):
        voice.speak("你好", seed=0)


def test_a_voice_that_is_not_installed_names_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hibari", None)
    load_voice.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'voicetextblender\[voice\]'"):
        load_voice("hibari")
    load_voice.cache_clear()


def test_shards_are_read_back_through_their_folder(tmp_path):
    run(SpokenSentences(SENTENCES[:2]), tmp_path)
    clip = conversations(tmp_path)[1].clips[0]
    assert isinstance(clip, Audio) and Path(clip.audio).name == "shard-00000.tar#000001.flac"
