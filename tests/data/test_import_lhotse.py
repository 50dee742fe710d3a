"""CutSets and Shar folders, written by Lhotse itself."""

import warnings

import numpy as np
import pytest
import soundfile

from voicetextblender.data.import_lhotse import import_lhotse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar import SharWriter


@pytest.fixture
def cuts(tmp_path, write_wav):
    """One cut of 2 s with two supervisions."""
    recording = lhotse.Recording.from_file(write_wav(tmp_path / "wavs/a.wav", 2.0))
    supervisions = [
        lhotse.SupervisionSegment(f"a-{n}", "a", start=n + 0.25, duration=0.5, text=text)
        for n, text in enumerate(["Hello there.", "Good bye."])
    ]
    for supervision in supervisions:
        supervision.language, supervision.speaker, supervision.gender = "English", "ann", "female"
        supervision.custom = {"accent": "Scottish", "snr": 3.0}
    return lhotse.CutSet.from_manifests(
        lhotse.RecordingSet.from_recordings([recording]),
        lhotse.SupervisionSet.from_segments(supervisions),
    )


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "cuts.jsonl"])
def test_each_supervision_is_a_slice_of_the_recording(tmp_path, cuts, read_back, name):
    cuts.to_file(tmp_path / name)
    report = import_lhotse(tmp_path / name, tmp_path / "out")
    assert report.kept == 2 and report.hours == pytest.approx(1 / 3600)
    conversation = read_back(tmp_path / "out/asr-en.jsonl")["a-1"]
    (clip,) = conversation.clips
    assert (clip.start, clip.duration, clip.text) == (1.25, 0.5, "Good bye.")
    assert conversation.meta == {"accent": "Scottish", "speaker": "ann", "gender": "female"}
    assert '"../wavs/a.wav"' in (tmp_path / "out/asr-en.jsonl").read_text("utf-8")


def test_a_trimmed_cut_counts_from_its_own_start(tmp_path, cuts, read_back):
    cuts.trim_to_supervisions().to_file(tmp_path / "cuts.jsonl")
    import_lhotse(tmp_path / "cuts.jsonl", tmp_path / "out")
    clips = [c.clips[0] for c in read_back(tmp_path / "out/asr-en.jsonl").values()]
    assert [(clip.start, clip.duration) for clip in clips] == [(0.25, 0.5), (1.25, 0.5)]


def test_shar_clips_are_members_of_the_tar(tmp_path, cuts, read_back):
    (tmp_path / "shar").mkdir()
    with SharWriter(str(tmp_path / "shar"), {"recording": "flac"}, shard_size=1) as writer:
        for cut in cuts.trim_to_supervisions():
            writer.write(cut)
    assert import_lhotse(tmp_path / "shar", tmp_path / "out").kept == 2
    clips = [c.clips[0] for c in read_back(tmp_path / "out/asr-en.jsonl").values()]
    assert [clip.start for clip in clips] == [0.0, 0.0]
    assert clips[1].audio.endswith("/shar/recording.000001.tar#a-1.flac")
    (tmp_path / "shar/recording.000001.tar").unlink()
    with pytest.raises(ValueError, match=r"recording.000001.tar: there is no such file beside"):
        import_lhotse(tmp_path / "shar", tmp_path / "out")


def test_what_is_no_plain_slice_is_counted(tmp_path, cuts, read_back):
    first, second = cuts.trim_to_supervisions()
    stereo = tmp_path / "wavs/b.wav"
    soundfile.write(stereo, np.zeros((16_000, 2)), 16_000)
    one_side = lhotse.Recording.from_file(stereo).to_cut()
    sides = [lhotse.SupervisionSegment("b-0", "b", 0.0, 1.0, channel=0, text="left only")]
    one_side.supervisions = sides
    silent = cuts[0].drop_supervisions()
    odd = [first.pad(1.0), first.append(second), second.perturb_speed(1.1), one_side, silent]
    odd += [first.truncate(offset=0.3)]
    lhotse.CutSet.from_cuts(odd).to_file(tmp_path / "cuts.jsonl")
    with (tmp_path / "cuts.jsonl").open("a", encoding="utf-8") as file:
        file.write("{\n[]\n\n")
    report = import_lhotse(tmp_path / "cuts.jsonl", tmp_path / "out")
    assert list(read_back(tmp_path / "out/asr-en.jsonl")) == ["a-0"]  # padding is left out
    assert report.dropped == {
        "mix of several recordings": 1,
        "recording changed on the fly (Speed)": 1,
        "one of several channels": 1,
        "no transcript": 1,
        "supervision reaches out of its cut": 1,
        "not JSON": 1,
        "not a JSON object": 1,
    }


def test_a_source_without_cuts_is_refused(tmp_path, cuts):
    with pytest.raises(ValueError, match="neither a file of cuts nor a Shar folder"):
        import_lhotse(tmp_path, tmp_path / "out")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="holds no entries"):
        import_lhotse(tmp_path / "empty.jsonl", tmp_path / "out")
    cuts.drop_supervisions().to_file(tmp_path / "mute.jsonl")
    with pytest.raises(ValueError, match="none of 1 entries can be used .1 × no transcript"):
        import_lhotse(tmp_path / "mute.jsonl", tmp_path / "out")
