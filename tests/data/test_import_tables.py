"""Common Voice, CoVoST 2 and LJSpeech, by the columns of their releases."""

import pytest

from voicetextblender.data.import_tables import import_commonvoice, import_ljspeech
from voicetextblender.data.importing import Given

COMMON_VOICE = ["client_id", "path", "sentence_id", "sentence", "up_votes"]
COMMON_VOICE += ["age", "gender", "accents", "locale"]


def write_tsv(path, columns, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(row) for row in [columns, *rows]]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_common_voice_gives_a_folder_for_each_split(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "sv/clips/cv_1.wav")
    ann = ["c0ffee", "cv_1.wav", "s1", 'Han sade "hej', "2", "twenties", "female", "", "sv-SE"]
    gone = ["c0ffee", "cv_2", "s2", "Hej.", "2", "", "", "", "sv-SE"]
    write_tsv(tmp_path / "sv/train.tsv", COMMON_VOICE, ann, gone)
    write_tsv(tmp_path / "sv/test.tsv", COMMON_VOICE, ann)
    write_tsv(tmp_path / "sv/validated.tsv", COMMON_VOICE, ann, ann)
    report = import_commonvoice(tmp_path / "sv", tmp_path / "out")
    assert report.kept == 2 and report.dropped == {"no such audio file": 1}
    conversation = read_back(tmp_path / "out/train/asr-sv.jsonl")["cv_1"]
    assert conversation.clips[0].text == 'Han sade "hej'
    assert conversation.meta == {
        "license": "CC0-1.0",
        "speaker": "c0ffee",
        "gender": "female",
        "age": "twenties",
    }
    assert read_back(tmp_path / "out/test/asr-sv.jsonl")
    assert not (tmp_path / "out/validated").exists()


def test_covost_adds_translations_to_common_voice(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "clips/cv_1.wav")
    table = write_tsv(
        tmp_path / "covost_v2.sv-SE_en.dev.tsv",
        ["path", "sentence", "translation", "client_id"],
        ["cv_1.wav", "Hej.", "Hi.", "c0ffee"],
        ["", "Hej.", "Hi.", "c0ffee"],
    )
    given = Given(lang="sv", target="en", license="CC-BY-NC-4.0")
    report = import_commonvoice(table, tmp_path / "out", given)
    assert report.kept == 1 and report.dropped == {"no audio": 1}
    ast = read_back(tmp_path / "out/ast-sv-en.jsonl")["cv_1-en"]
    assert ast.meta == {"speaker": "c0ffee", "license": "CC-BY-NC-4.0", "target_lang": "en"}
    assert (ast.clips[0].text, ast.messages[1].parts[0].text) == ("Hej.", "Hi.")
    assert read_back(tmp_path / "out/asr-sv.jsonl")["cv_1"].clips == ast.clips


def test_a_column_with_an_unusual_name_can_be_named(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "a.wav")
    table = write_tsv(tmp_path / "a.tsv", ["path", "said"], ["a.wav", "Hi."])
    with pytest.raises(ValueError, match="a.tsv: no transcripts.*among path, said; name the col"):
        import_commonvoice(table, tmp_path / "out", Given(lang="en"))
    import_commonvoice(table, tmp_path / "out", Given(lang="en", text_column="said"))
    assert read_back(tmp_path / "out/asr-en.jsonl")["a"].clips[0].text == "Hi."


def test_what_is_no_table_of_common_voice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no train.tsv, dev.tsv or test.tsv here"):
        import_commonvoice(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no column 'path' for the clips, but sentence"):
        import_commonvoice(write_tsv(tmp_path / "a.tsv", ["sentence"]), tmp_path / "out")
    (tmp_path / "b.tsv").touch()
    with pytest.raises(ValueError, match="b.tsv: is empty; name a table with a line of column"):
        import_commonvoice(tmp_path / "b.tsv", tmp_path / "out")
    table = write_tsv(tmp_path / "c.tsv", COMMON_VOICE)
    with pytest.raises(ValueError, match="c.tsv: holds no entries"):
        import_commonvoice(table, tmp_path / "out")


def test_ljspeech_is_known_by_its_names_and_its_form_is_not(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "wavs/LJ001-0001.wav")
    write_wav(tmp_path / "wavs/eva_1.wav")
    lines = ["LJ001-0001|In 1455,|In fourteen fifty-five,", "eva_1|Guten Tag.", "no text"]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")
    report = import_ljspeech(tmp_path, tmp_path / "out", Given(lang="de"))
    assert report.kept == 2 and report.dropped == {"line without '|'": 1}
    original = read_back(tmp_path / "out/asr-en.jsonl")["LJ001-0001"]
    assert original.clips[0].text == "In fourteen fifty-five,"
    assert original.meta == {"speaker": "Linda Johnson", "license": "public domain"}
    assert read_back(tmp_path / "out/asr-de.jsonl")["eva_1"].meta == {}
    with pytest.raises(ValueError, match="metadata.csv: there is no such file; name the folder"):
        import_ljspeech(tmp_path / "wavs", tmp_path / "out")
