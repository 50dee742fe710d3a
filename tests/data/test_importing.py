"""What importers share, and the folder of recordings with .txt beside them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.cli import app
from voicetextblender.data.import_folder import import_folder
from voicetextblender.data.importers import IMPORTERS, import_corpus
from voicetextblender.data.importing import (
    Conversations,
    Given,
    ImportReport,
    language_code,
)

ENGLISH = Given(lang="en")


def test_a_recording_is_said_in_the_txt_beside_it(tmp_path, write_wav, read_back):
    write_wav(tmp_path / "talks/ann/a.wav")
    (tmp_path / "talks/ann/a.txt").write_text("\ufeffHello\n there.\n", "utf-8")
    for name in ("b", "c"):
        write_wav(tmp_path / f"talks/{name}.wav")
    (tmp_path / "talks/c.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "talks/readme.txt").write_text("read me")
    report = import_folder(tmp_path / "talks", tmp_path / "out", ENGLISH)
    assert report.kept == 1 and report.dropped == {
        ".txt is not UTF-8": 1,
        "no .txt beside it": 1,
        "no recording beside the .txt": 1,
    }
    conversation = read_back(tmp_path / "out/asr-en.jsonl")["ann-a"]
    assert conversation.clips[0].text == "Hello there."
    assert conversation.messages[1].parts[0].text == "Hello there."
    with pytest.raises(ValueError, match="readme.txt: is no folder"):
        import_folder(tmp_path / "talks/readme.txt", tmp_path / "out", ENGLISH)


def test_an_import_that_fails_leaves_no_conversations(tmp_path, write_wav):
    write_wav(tmp_path / "talks/a.wav")
    (tmp_path / "talks/a.txt").write_text("Hello.")
    import_folder(tmp_path / "talks", tmp_path / "out", ENGLISH)
    whole = (tmp_path / "out/asr-en.jsonl").read_bytes()
    chat = Conversation("x", (user("Hi"), assistant("Hello.")))
    with pytest.raises(RuntimeError), Conversations(tmp_path / "out", ENGLISH) as conversations:
        conversations.add_conversation(chat, "asr-en")
        raise RuntimeError
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [whole]


def test_a_path_that_shares_but_the_root_stays_absolute(tmp_path, write_wav):
    clip = write_wav(tmp_path / "a.wav")
    far = Conversations(Path("/elsewhere/out")).refer(Audio(str(clip)))
    near = Conversations(tmp_path / "out").refer(Audio(str(clip)))
    assert (far.audio, near.audio) == (str(clip), "../a.wav")


@pytest.mark.parametrize(
    ("tag", "code"),
    [("en", "en"), ("pt_br", "pt"), ("zh-CN", "zh"), ("German", "de"), ("cmn_hans_cn", "zh")]
    + [("tlh", None), ("", None)],
)
def test_languages_are_known_in_any_spelling(tag, code):
    assert language_code(tag) == code


def test_every_kind_needs_a_source_that_is_there(tmp_path):
    for kind in IMPORTERS:
        with pytest.raises(ValueError, match="nowhere: there is no such file or folder"):
            import_corpus(kind, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="'kaldy' is no kind of source; known: hf, lhotse"):
        import_corpus("kaldy", tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="importing 'kaldi' needs a folder.*run: vtb data import"):
        import_corpus("kaldi", tmp_path, None)


def test_the_command_knows_every_kind_and_reports_what_was_dropped(tmp_path, write_wav):
    shown = CliRunner().invoke(app, ["data", "import", "--help"]).output
    assert all(kind in shown for kind in IMPORTERS)
    for name in "ab":
        write_wav(tmp_path / f"talks/{name}.wav")
    (tmp_path / "talks/a.txt").write_text("Hello.")
    words = ["folder", str(tmp_path / "talks"), "--out", str(tmp_path / "out"), "--lang", "en"]
    done = CliRunner().invoke(app, ["data", "import", *words])
    assert done.exit_code == 0 and not done.stdout
    assert "1 kept, 0.00 h" in done.stderr and "1 dropped: no .txt beside it" in done.stderr


@pytest.mark.parametrize("words", [["--out", "there"], ["there"], ["/usr", "--out", "there"]])
def test_asterisk_may_be_imported_from_what_is_installed(monkeypatch, words):
    asked = []

    def importer(source, out, given):
        asked.append((source, out))
        return ImportReport(1, 0.0, {})

    monkeypatch.setitem(IMPORTERS, "asterisk", importer)
    assert CliRunner().invoke(app, ["data", "import", "asterisk", *words]).exit_code == 0
    source = Path("/usr" if len(words) == 3 else "/usr/share")
    assert asked == [(source, Path("there"))]
