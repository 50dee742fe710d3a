"""Hugging Face datasets, written by `datasets` itself."""

import io
import sys
import warnings

import pytest
import soundfile

from voicetextblender.data.import_hf import import_hf
from voicetextblender.data.importing import Given

parquet = pytest.importorskip("pyarrow.parquet")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")


@pytest.fixture
def flac(sound):
    """The bytes of a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, sound(0.5), 16_000, format="FLAC")
    return file.getvalue()


def dataset(rows, **features):
    """Build a dataset of rows with an Audio column, and others of the given features."""
    made = datasets.Dataset.from_list(rows)
    features = {"audio": datasets.Audio(16_000), **features}
    return made.cast(datasets.Features({**made.features, **features}))


def librispeech(flac):
    rows = [
        {"audio": {"bytes": flac, "path": f"84-{n}.flac"}, "text": "GO", "speaker_id": 84}
        | {"id": f"84-{n}"}
        for n in range(3)
    ]
    rows[2]["text"] = " "
    return dataset(rows)


def test_a_saved_dataset_becomes_clips_byte_for_byte(tmp_path, flac, read_back):
    librispeech(flac).save_to_disk(tmp_path / "saved")
    given = Given(lang="en", license="CC-BY-4.0")
    report = import_hf(tmp_path / "saved", tmp_path / "out", given)
    assert report.kept == 2 and report.dropped == {"no transcript": 1}
    assert report.hours == pytest.approx(1 / 3600)
    conversation = read_back(tmp_path / "out/asr-en.jsonl")["84-1"]
    assert conversation.meta == {"speaker": "84", "license": "CC-BY-4.0"}
    assert conversation.clips[0].text == "GO"
    clips = sorted((tmp_path / "out/clips").rglob("*.flac"))
    assert [clip.read_bytes() for clip in clips] == [flac, flac]  # and none of what was dropped


def test_each_split_has_its_folder(tmp_path, flac, read_back):
    train = librispeech(flac)
    splits = datasets.DatasetDict(train=train, test=train.select([0]))
    splits.save_to_disk(tmp_path / "saved")
    report = import_hf(tmp_path / "saved", tmp_path / "out", Given(lang="English"))
    assert report.kept == 3
    assert len(read_back(tmp_path / "out/train/asr-en.jsonl")) == 2
    assert len(read_back(tmp_path / "out/test/asr-en.jsonl")) == 1


def test_parquet_shards_of_a_split_are_joined(tmp_path, flac, read_back):
    (tmp_path / "hub/data").mkdir(parents=True)
    for shard in (0, 1):
        librispeech(flac).to_parquet(tmp_path / f"hub/data/train-0000{shard}-of-00002.parquet")
    assert import_hf(tmp_path / "hub", tmp_path / "out", Given(lang="en")).kept == 4
    ids = read_back(tmp_path / "out/train/asr-en.jsonl")
    assert list(ids) == ["84-0", "84-1", "84-0-2", "84-1-2"]


def test_fleurs_has_names_for_its_numbers_and_two_transcripts(tmp_path, flac, read_back):
    row = {"audio": {"bytes": flac, "path": "100.wav"}, "id": 7, "gender": 1, "lang_id": 0}
    row |= {"transcription": "hallo du", "raw_transcription": "Hallo, du!", "language": "German"}
    gender = datasets.ClassLabel(names=["male", "female", "other"])
    lang_id = datasets.ClassLabel(names=["de_de", "xx_yy"])
    rows = [row, row | {"lang_id": 1, "language": "Klingon"}]
    table = dataset(rows, gender=gender, lang_id=lang_id)
    table.to_parquet(tmp_path / "fleurs.parquet")
    report = import_hf(tmp_path / "fleurs.parquet", tmp_path / "out")
    assert report.dropped == {"language 'xx_yy' is not known here": 1}
    conversation = read_back(tmp_path / "out/asr-de.jsonl")["7"]
    assert conversation.clips[0].text == "Hallo, du!" and conversation.meta == {"gender": "female"}


def test_covost_gives_translation_and_transcription(tmp_path, flac, read_back):
    row = {"audio": {"bytes": flac, "path": "cv_1.mp3"}, "sentence": "Hello.", "client_id": "x"}
    table = dataset([row | {"translation": "Hallo.", "id": "cv_1", "file": "/gone/cv_1.mp3"}])
    table.to_parquet(tmp_path / "covost.parquet")
    import_hf(tmp_path / "covost.parquet", tmp_path / "out", Given(lang="en", target="de"))
    (ast,) = read_back(tmp_path / "out/ast-en-de.jsonl").values()
    assert (ast.task, ast.lang, ast.meta["target_lang"]) == ("ast", "en", "de")
    assert ast.messages[0].parts[0].text.startswith("Translate the English content to German")
    assert ast.messages[1].parts[0].text == "Hallo." and ast.clips[0].text == "Hello."
    (asr,) = read_back(tmp_path / "out/asr-en.jsonl").values()
    assert asr.clips == ast.clips
    with pytest.raises(ValueError, match="does not say which language this is; say it with --tar"):
        import_hf(tmp_path / "covost.parquet", tmp_path / "out2", Given(lang="en"))
    assert not list((tmp_path / "out2").glob("*.jsonl*"))


def test_the_times_of_mls_are_those_of_the_book_and_not_of_the_clip(tmp_path, flac, read_back):
    row = {"audio": {"bytes": flac, "path": "4800_10003_0.flac"}, "transcript": "ja", "file": "x"}
    row |= {"begin_time": 401.76, "end_time": 417.57, "audio_duration": 0.5, "id": "4800_0"}
    dataset([row]).to_parquet(tmp_path / "mls.parquet")
    import_hf(tmp_path / "mls.parquet", tmp_path / "out", Given(lang="de"))
    assert read_back(tmp_path / "out/asr-de.jsonl")["4800_0"].clips[0].start == 0


def test_audio_that_a_row_names_stays_where_it_is(tmp_path, write_wav, read_back):
    # `datasets` takes named files into what it saves, so this one is written around it.
    clip, gone = write_wav(tmp_path / "wavs/a.wav"), tmp_path / "wavs/gone.wav"
    rows = [{"audio": {"bytes": None, "path": str(clip)}, "text": "go"}]
    rows += [{"audio": {"bytes": None, "path": str(gone)}, "text": "go"}]
    rows += [{"audio": {"bytes": b"", "path": None}, "text": "go"}]
    rows += [{"audio": {"bytes": b"noise", "path": "b.wav"}, "text": "go"}]
    parquet.write_table(dataset(rows).data.table, tmp_path / "named.parquet")
    report = import_hf(tmp_path / "named.parquet", tmp_path / "out", Given(lang="en"))
    assert report.dropped == {
        "audio cannot be read": 1,
        "no audio": 1,
        "no such audio file": 1,
    }
    line = (tmp_path / "out/asr-en.jsonl").read_text("utf-8")
    assert '"../wavs/a.wav"' in line and read_back(tmp_path / "out/asr-en.jsonl")


def test_what_cannot_be_imported_is_one_sentence(tmp_path, flac, monkeypatch):
    librispeech(flac).to_parquet(tmp_path / "a.parquet")
    librispeech(flac).remove_columns("text").to_parquet(tmp_path / "no-text.parquet")
    librispeech(flac).remove_columns("audio").to_parquet(tmp_path / "no-audio.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    librispeech(flac).select([]).save_to_disk(tmp_path / "none")
    for name, message in [
        (
            "no-text.parquet",
            "no transcripts, for there is no column .* among audio, speaker_id, id",
        ),
        ("no-audio.parquet", "no column has audio, as bytes or path, among text"),
        ("bad.parquet", "is no Parquet or Arrow file"),
        ("empty", "is no dataset; name a folder that 'save_to_disk' wrote"),
        ("none", "holds no entries"),
    ]:
        with pytest.raises(ValueError, match=message):
            import_hf(tmp_path / name, tmp_path / "out", Given(lang="en"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'voicetextblender\[data\]'"):
        import_hf(tmp_path / "a.parquet", tmp_path / "out")
