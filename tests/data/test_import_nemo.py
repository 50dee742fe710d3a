"""NeMo manifests, plain and tarred, as its documentation and its tarring script have them."""

import json
import tarfile

import pytest

from voicetextblender.data.import_nemo import import_nemo
from voicetextblender.data.importing import Given

ENGLISH = Given(lang="en")


def write(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return path


def test_entries_are_files_or_slices_of_them(tmp_path, write_wav, read_back):
    clip = write_wav(tmp_path / "wavs/a.wav", 2.0)
    manifest = write(
        tmp_path / "train.json",
        {"audio_filepath": str(clip), "duration": 2.0, "text": "hello", "speaker": 3},
        {"audio_filepath": "wavs/a.wav", "offset": 0.5, "duration": 1.0, "text": "well"},
        {"audio_filepath": "wavs/a.wav", "text": "all of it", "lang": "de"},
        {"audio_filepath": "wavs/a.wav", "duration": 2.0, "text": ""},
        {"audio_filepath": "wavs/a.wav", "duration": "long", "text": "x"},
        {"audio_filepath": "gone.wav", "duration": 2.0, "text": "x"},
        {"duration": 2.0, "text": "x"},
    )
    report = import_nemo(manifest, tmp_path / "out", ENGLISH)
    assert report.kept == 3 and report.dropped == {
        "'duration' is not a number of seconds": 1,
        "no 'audio_filepath'": 1,
        "no such audio file": 1,
        "no transcript": 1,
    }
    conversations = read_back(tmp_path / "out/asr-en.jsonl")
    assert conversations["a"].meta == {"speaker": "3"}
    (part,) = conversations["a-0.5"].clips
    assert (part.start, part.duration, part.text) == (0.5, 1.0, "well")
    assert list(read_back(tmp_path / "out/asr-de.jsonl")) == ["a-2"]


def test_entries_of_a_tarred_folder_are_members(tmp_path, write_wav, read_back):
    clip = write_wav(tmp_path / "a.wav", 2.0)
    for shard in (0, 1):
        (tmp_path / "tarred").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / f"tarred/audio_{shard}.tar", "w") as tar:
            tar.add(clip, f"wavs_a{shard}.wav")
    manifest = write(
        tmp_path / "tarred/tarred_audio_manifest.json",
        {"audio_filepath": "wavs_a0.wav", "duration": 2.0, "text": "one", "shard_id": 0},
        {"audio_filepath": "wavs_a0-sub1.wav", "offset": 1.0, "duration": 1.0}
        | {"text": "two", "shard_id": 0},
        {"audio_filepath": "wavs_a1.wav", "duration": 2.0, "text": "three", "shard_id": 1},
        {"audio_filepath": "wavs_a0.wav", "duration": 2.0, "text": "gone", "shard_id": 1},
    )
    report = import_nemo(tmp_path / "tarred", tmp_path / "out", ENGLISH)
    assert report.dropped == {"not in the tar": 1}
    clips = [c.clips[0] for c in read_back(tmp_path / "out/asr-en.jsonl").values()]
    assert [clip.audio.rpartition("/")[2] for clip in clips] == [
        "audio_0.tar#wavs_a0.wav",
        "audio_0.tar#wavs_a0.wav",
        "audio_1.tar#wavs_a1.wav",
    ]
    assert clips[1].start == 1.0
    sharded = tmp_path / "tarred/sharded_manifests/manifest_1.json"
    write(sharded, json.loads(manifest.read_text().splitlines()[2]))
    assert import_nemo(sharded, tmp_path / "out1", ENGLISH).kept == 1


def test_the_text_of_a_translating_entry_of_canary_is_the_translation(
    tmp_path, write_wav, read_back
):
    write_wav(tmp_path / "a.wav", 1.0)
    entry = {"audio_filepath": "a.wav", "duration": 1.0, "source_lang": "en", "pnc": "yes"}
    manifest = write(
        tmp_path / "canary.json",
        entry | {"text": "Hello.", "target_lang": "en"},
        entry | {"text": "Hallo.", "target_lang": "de"},
    )
    import_nemo(manifest, tmp_path / "out")
    (asr,) = read_back(tmp_path / "out/asr-en.jsonl").values()
    (ast,) = read_back(tmp_path / "out/ast-en-de.jsonl").values()
    assert asr.clips[0].text == "Hello."
    assert ast.messages[1].parts[0].text == "Hallo." and ast.clips[0].text is None


def test_what_is_no_manifest_or_lacks_a_tar_is_refused(tmp_path, write_wav):
    write_wav(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="tarred_audio_manifest.json: there is no such manifest"):
        import_nemo(tmp_path, tmp_path / "out")
    mute = write(tmp_path / "mute.json", {"audio_filepath": "a.wav", "duration": 0.5})
    with pytest.raises(ValueError, match="no entry has 'text', but audio_filepath, duration"):
        import_nemo(mute, tmp_path / "out", ENGLISH)
    entry = {"audio_filepath": "a.wav", "text": "x", "shard_id": 7}
    with pytest.raises(ValueError, match="audio_7.tar: there is no such tar"):
        import_nemo(write(tmp_path / "m.json", entry), tmp_path / "out", ENGLISH)
    with tarfile.open(tmp_path / "audio_7.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match="audio_7.tar: is not an uncompressed tar"):
        import_nemo(tmp_path / "m.json", tmp_path / "out", ENGLISH)
