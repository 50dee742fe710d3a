"""Kaldi data directories: one written by Lhotse's exporter, others line by line."""

import warnings

import pytest

from voicetextblender.data.import_kaldi import import_kaldi
from voicetextblender.data.importing import Given

ENGLISH = Given(lang="en")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name.replace("wav_", "wav.")).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_segments_of_an_exported_directory_are_slices(tmp_path, write_wav, read_back):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lhotse = pytest.importorskip("lhotse")
        from lhotse.kaldi import export_to_kaldi
    recording = lhotse.Recording.from_file(write_wav(tmp_path / "wavs/a.wav", 2.0))
    supervision = lhotse.SupervisionSegment("ann-a-0", "a", 0.5, 1.0, text="hello there")
    supervision.speaker, supervision.gender, supervision.language = "ann", "f", "German"
    export_to_kaldi(
        lhotse.RecordingSet.from_recordings([recording]),
        lhotse.SupervisionSet.from_segments([supervision]),
        tmp_path / "kaldi",
    )
    assert import_kaldi(tmp_path / "kaldi", tmp_path / "out").kept == 1
    (conversation,) = read_back(tmp_path / "out/asr-de.jsonl").values()
    (clip,) = conversation.clips
    assert (clip.start, clip.duration, clip.text) == (0.5, 1.0, "hello there")
    assert conversation.meta == {"speaker": "ann", "gender": "female"}


def test_without_segments_a_recording_is_an_utterance(tmp_path, write_wav, read_back):
    clip = write_wav(tmp_path / "egs/wavs/a.wav", 0.75)
    folder = write(
        tmp_path / "egs/data/train",
        wav_scp=["ann-a wavs/a.wav", f"bob-b flac -c -d -s {clip} |", "cy-c sox x.wav -t wav - |"]
        + ["dan-d raw.ark:17", "eve-e wavs/a.wav"],
        text=["ann-a hello", "bob-b well", "cy-c ah", "dan-d oh", "fay-f oh"],
        utt2spk=["ann-a ann", "bob-b bob"],
        spk2gender=["ann f"],
    )
    report = import_kaldi(folder, tmp_path / "out", ENGLISH)
    assert report.dropped == {
        "no recording": 1,
        "no transcript": 1,
        "wav.scp has a command (sox), not a file": 1,
        "wav.scp has an archive, not a file": 1,
    }
    conversations = read_back(tmp_path / "out/asr-en.jsonl")
    assert list(conversations) == ["ann-a", "bob-b"]
    assert conversations["ann-a"].meta == {"speaker": "ann", "gender": "female"}
    assert conversations["ann-a"].clips[0].duration == 0.75


def test_segments_that_cannot_be_cut_are_counted(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "kaldi/a.wav", 2.0)
    names = ["to-end", "channel", "words", "short", "backwards"]
    times = ["a 1.5 -1", "a 0 1 2", "a x y", "a 1", "a 1.0 0.5"]
    folder = write(
        tmp_path / "kaldi",
        wav_scp=["a a.wav"],
        text=[f"{name} hello" for name in [*names, "none"]],
        segments=[f"{name} {time}" for name, time in zip(names, times, strict=True)],
    )
    report = import_kaldi(folder, tmp_path / "out", ENGLISH)
    assert report.dropped == {
        "clip without length": 1,
        "no segment": 1,
        "one of several channels": 1,
        "segment without times": 2,
    }
    (clip,) = read_back(tmp_path / "out/asr-en.jsonl")["to-end"].clips
    assert (clip.start, clip.duration) == (1.5, 0.5)


def test_a_directory_without_transcripts_or_language_is_refused(tmp_path, write_wav):
    write_wav(tmp_path / "kaldi/a.wav")
    folder = write(tmp_path / "kaldi", wav_scp=["a a.wav"])
    with pytest.raises(ValueError, match="no 'text' here; name a Kaldi data directory"):
        import_kaldi(folder, tmp_path / "out", ENGLISH)
    write(folder, text=["a hello"])
    with pytest.raises(ValueError, match="does not say which language this is; say it with --lang"):
        import_kaldi(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="--lang 'tlh' is no language known here; use one of ar"):
        import_kaldi(folder, tmp_path / "out", Given(lang="tlh"))
