import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.config import Recipe, dump_recipe
from voicetextblender.eval import asr
from voicetextblender.eval.charts import line_chart, ticks
from voicetextblender.eval.listen import differences, drawn_by_lot
from voicetextblender.eval.old_retention import Retention, TextAnswer
from voicetextblender.eval.report import write_report
from voicetextblender.page import join

HOSTILE = '<script>alert("x")</script> & <img src=x>'
VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would find."""

    def __init__(self, markup: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def log_line(step: int) -> dict:
    return {
        "step": step,
        "draw": 12 * step,
        "loss_by_source": {"speech": 3 / step, HOSTILE: 1.0},
        "tokens_by_source": {"speech": 100, HOSTILE: 300},
        "ctc": 5 / step,
        "tokens_per_s": 100.0,
        "audio_s_per_s": 4.0,
        "seconds": 50.0,
    }


@pytest.fixture
def run(tmp_path, sound):
    """A run's folder with everything in it; in its texts, all that could go wrong."""
    folder = tmp_path / "run"
    talks = []
    for n, lang in enumerate(("en", "en", "it", "xx")):
        audio.save(tmp_path / f"{n}.opus", sound(0.3, n))
        said = f"one two {HOSTILE}" if n == 1 else "one two three"
        clip = Audio(f"{n}.opus", duration=0.3, text=said)
        talks.append(Conversation(f"c{n}", (user("Say:", clip), assistant(said)), "asr", lang))
    (tmp_path / "calls.jsonl").write_text("\n".join(map(to_line, talks)))
    sets = [asr.EvalSet("calls", tmp_path / "calls.jsonl", "real")]
    sets.append(replace(sets[0], name="old-calls", seen=True, speech="synthetic"))
    for part, words in (("before", "x " * 9), ("after", "one two"), ("whisper", HOSTILE)):
        said = [words]
        asr.transcribe_sets(lambda b, s=said: s * len(b), sets, folder / "eval" / part, part, "g")
    kept = Retention("llm", 20.0, 20.0, 21.0, True, 99, (TextAnswer("q?", HOSTILE, "a"),), "m", "d")
    (folder / "eval/retention.json").write_bytes(asr.TypeAdapter(Retention).dump_json(kept))
    sources = [
        {"name": "speech", "path": str(tmp_path / "calls.jsonl"), "weight": 3},
        {"name": HOSTILE, "path": str(tmp_path / "gone.jsonl"), "weight": 1},
    ]
    recipe = Recipe.model_validate({"run": str(folder), "blend": sources})
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    lines = [json.dumps(log_line(step)) + "\n" for step in (1, 2, 3)]
    (folder / "log.jsonl").write_text("".join(lines) + '{"step": 4')
    (folder / "model").mkdir()
    (folder / "model/provenance.json").write_text('{"torch": "2"}')
    return folder


def read(run) -> Reader:
    return Reader(write_report(run).read_text(encoding="utf-8"))


def test_the_report_is_one_file_of_balanced_markup(run):
    page = read(run)
    assert page.tags.count("audio") == 8
    assert all(source.startswith("data:audio/ogg;codecs=opus;base64,") for source in page.sources)
    assert page.tags.count("svg") > 6


def test_text_from_the_data_never_becomes_markup(run):
    page = read(run)
    assert not {"script", "img"} & set(page.tags)
    assert HOSTILE in page.text


def test_every_number_stands_beside_whispers_and_the_one_before(run):
    page = read(run)
    for words in ("calls", "old-calls", "real", "synthetic", "held out", "in training", "Italian"):
        assert words in page.text
    assert "+5.0" in page.text and "identical" in page.text
    assert "normaliser basic-1" in page.text


def test_the_blend_is_shown_as_planned_and_as_drawn(run):
    text = read(run).text
    assert "75.0 %" in text  # planned, and 27 of 36 drawn
    assert "6.75" in text  # epochs of four conversations


def test_two_reports_of_one_run_are_the_same(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


@pytest.mark.parametrize(
    "missing",
    [
        "recipe.yaml",
        "log.jsonl",
        "model/provenance.json",
        "eval/before.json",
        "eval/after.json",
        "eval/whisper.json",
        "eval/retention.json",
        "eval/after/calls.jsonl",
        "eval/whisper/calls.jsonl",
        "../0.opus",
    ],
)
def test_what_is_missing_is_left_out(run, missing):
    (run / missing).unlink()
    read(run)


def test_the_report_of_one_part_alone_is_a_report(run, tmp_path):
    for part in ("log.jsonl", "eval/after.json", "eval/retention.json"):
        alone = tmp_path / "alone" / part
        alone.parent.mkdir(parents=True, exist_ok=True)
        alone.write_bytes((run / part).read_bytes())
        read(tmp_path / "alone")
        alone.unlink()


def test_scores_of_data_that_changed_in_between_are_not_passed_off_as_comparable(run):
    assert "must not be compared" not in read(run).text
    path = run / "eval/whisper.json"
    results = json.loads(path.read_text())
    results["calls"]["data_sha256"] = "other"
    path.write_text(json.dumps(results))
    assert "The data of calls changed between these measurements" in read(run).text


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="nothing to report; name the folder of a run"):
        write_report(tmp_path)


def test_differences_mark_what_is_wrong_and_strike_what_is_missing():
    assert join(differences("Press six now.", "press sex now, <b>")) == (
        "press <del>six</del> <mark>sex</mark> now, <mark>&lt;b&gt;</mark> "
    )
    assert join(differences("Gone.", "")) == "<del>Gone.</del> "


def test_the_lot_gives_every_set_and_language_its_place(run):
    predictions = asr.read_predictions(run / "eval/after/calls.jsonl")
    drawn = drawn_by_lot(predictions, 3)
    assert {prediction.lang for prediction in drawn} == {"en", "it", "xx"}
    assert drawn == drawn_by_lot(predictions, 3)


@pytest.mark.parametrize(
    ("largest", "steps"),
    [(4.7, [0, 1, 2, 3, 4, 5]), (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.0, [0, 0.2]), (1200, [0])],
)
def test_ticks_are_round_and_cover_the_largest(largest, steps):
    found = ticks(largest, 5)
    assert found[: len(steps)] == pytest.approx(steps)
    assert found[-1] >= largest and len(found) <= 7


def test_a_long_curve_is_drawn_by_its_means_and_without_gaps():
    points = [(float(n), float("nan") if n == 7 else n % 2.0) for n in range(6000)]
    drawn = line_chart({"a": points}, {"a": "red"}, "steps", "loss")
    assert "nan" not in drawn and drawn.count(",") < 320
    Reader(drawn)


def test_a_curve_without_a_finite_point_is_no_chart():
    assert "polyline" not in line_chart({"a": [(0.0, float("nan"))]}, {"a": "red"}, "x", "y")
