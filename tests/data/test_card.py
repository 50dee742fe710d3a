import json

import pytest
import yaml

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.card import write_card

HOSTILE = "a | <script>alert(1)</script>\n# [x](https://x.example)"


@pytest.fixture
def data(tmp_path, sound):
    """Real German, synthetic English, and hostile text."""
    folder = tmp_path / "calls"
    folder.mkdir()
    audio.save(folder / "a.wav", sound(18.0))

    def talk(name, task, lang, meta):
        turns = (user(Audio("a.wav", text=name)), assistant(name)) if task != "text" else None
        return Conversation(name, turns or (user("?"), assistant(name)), task, lang, meta)

    talks = [
        talk("a", "asr", "de", {"speaker": "ada", "license": "CC-BY-4.0", "source": "line 1"}),
        talk("b", "ast", "de", {"speaker": "ada", "license": "CC-BY-4.0", "source": "line 1"}),
        talk("c", "asr", "en", {"voice": "hibari"}),
        talk("d", "own", None, {"speaker": HOSTILE, "license": HOSTILE}),
        talk("e", "text", "en", {"license": "MIT"}),
    ]
    (folder / "set.jsonl").write_text("\n".join(map(to_line, talks)))
    return folder


@pytest.fixture
def written(data, tmp_path):
    """Writes the card; returns its front matter and its text."""

    def card(name=None):
        write_card([str(data / "*.jsonl")], data / "README.md", name)
        _, front, text = (data / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(front), text

    return card


def test_the_front_matter_is_what_the_hub_asks_for(written):
    front, _ = written()
    assert front == {
        "language": ["de", "en"],
        "license": ["cc-by-4.0", "mit", "other", "unknown"],
        "task_categories": [
            "automatic-speech-recognition",
            "other",
            "text-generation",
            "translation",
        ],
        "size_categories": ["n<1K"],
        "pretty_name": "calls",
    }


def test_real_and_synthetic_hours_stand_apart(written):
    _, text = written()
    assert "5 conversations with 4 clips, 0.02 hours of speech: 0.01 real, 0.01 synth" in text
    assert "| hibari | synthetic | 1 | 1 | 0.01 |" in text
    assert "| ada | real | 2 | 2 | 0.01 |" in text
    assert "| German (de) | ast | real | 1 | 1 | 0.01 |" in text
    assert "| line 1 | real | 2 | 2 | 0.01 |" in text
    assert "| same clip twice | 1 |" in text


def test_text_from_the_data_stays_text(written):
    front, text = written(HOSTILE)
    assert front["pretty_name"] == HOSTILE
    assert "<script>" not in text.replace("\\<script\\>", "")
    for table in (part for part in text.split("\n\n") if part.startswith("|")):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(widths) == 1
    assert "](" not in text.replace("\\]", "")


def test_a_report_beside_the_data_says_how_it_was_made(written, data):
    assert "not recorded" in written()[1]
    (data / "README.md").unlink()
    report = {"tool": "vtb", "kept": 5, "dropped": {"too long": 2}, "seeds": [1, 2], "x": None}
    (data / "report.json").write_text(json.dumps(report))
    assert (
        "From `calls/report.json`:\n\n- tool: vtb\n- kept: 5\n- dropped:\n  - too long: 2\n"
        "- seeds:\n  - 1\n  - 2\n- x: null\n"
    ) in written()[1]


def test_a_report_that_is_no_json_is_refused(written, data):
    (data / "report.json").write_text("{")
    with pytest.raises(ValueError, match="report.json: not JSON .*so the card cannot quote it"):
        written()


def test_a_card_that_is_there_is_not_written_over(written, data):
    (data / "README.md").write_text("by hand")
    with pytest.raises(ValueError, match="README.md: is there already"):
        written()
    assert (data / "README.md").read_text() == "by hand"
