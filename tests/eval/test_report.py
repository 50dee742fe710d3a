import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.config import Recipe, dump_recipe
from voicetextblender.eval.charts import line_chart, ticks
from voicetextblender.eval.listen import differences, drawn_by_lot, heard
from voicetextblender.eval.predict import Measured, System, predict
from voicetextblender.eval.report import write_report
from voicetextblender.eval.results import read_run
from voicetextblender.eval.scores import score_folder
from voicetextblender.eval.suite import EvalSet, Suite, write_items
from voicetextblender.eval.tables import serving
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
        "conversations_by_source": {"speech": 9, HOSTILE: 3},
        "ctc": 5 / step,
        "tokens_per_s": 100.0,
        "audio_s_per_s": 4.0,
        "seconds": 50.0,
    }


ANSWERS = {
    "ours": "one two",
    "whisper": HOSTILE,
    "typed": "one two three",
    "cascade": "",
    "base": "",
}


def ask(folder: Path, sets: Sequence[EvalSet], answers: dict[str, str]) -> None:
    """Write an evaluation's folder in which every system answers everything alike."""
    for of in sets:
        for system, words in answers.items():
            if of.scorer == "perplexity":
                sums, logits = (
                    [30.0 + (system == "ours"), 10.0],
                    "off" if system != "ours" else "on",
                )
                measured = [Measured(sums, logits)]
                made = System(
                    system, system, "", None, {"perplexity": lambda b, m=measured: m * len(b)}
                )
            else:
                made = System(system, system, "g", lambda batch, _, w=words: [w] * len(batch))
            write_items(of, folder)
            predict(made, of, folder, 4096)
    suite = Suite(name="mine", sets=tuple(sets))
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    score_folder(folder)


@pytest.fixture
def run(tmp_path, sound):
    """A run's folder with everything in it; in its texts, all that could go wrong."""
    folder = tmp_path / "run"
    talks = []
    for n, lang in enumerate(("en", "en", "it", "xx")):
        audio.save(tmp_path / f"{n}.opus", sound(0.3, n))
        said = f"one two {HOSTILE}" if n == 1 else "one two three"
        clip = Audio(f"{n}.opus", duration=0.3, text=said)
        meta = {"speaker": HOSTILE if n % 2 else "him"}
        talks.append(Conversation(f"c{n}", (user("Say:", clip), assistant(said)), "a", lang, meta))
    (tmp_path / "calls.jsonl").write_text("\n".join(map(to_line, talks)))
    many = [replace(talk, id=f"{n}-{talk.id}") for n in range(5) for talk in talks]
    (tmp_path / "many.jsonl").write_text("\n".join(map(to_line, many)))
    (tmp_path / "text.txt").write_text(f"{HOSTILE}\nA passage.\n")
    calls, text = str(tmp_path / "calls.jsonl"), str(tmp_path / "text.txt")
    heard = EvalSet(name="calls", path=calls, speech="real", scorer="wer")
    old = {"name": "old-calls", "seen": True, "speech": "synthetic"}
    by = {"name": "asked", "scorer": "qa", "by": ("speaker",), "path": str(tmp_path / "many.jsonl")}
    sets = [heard, heard.model_copy(update=old), heard.model_copy(update=by)]
    typed = EvalSet(name="typed", path=calls, speech="none", scorer="qa")
    ask(folder / "eval/before", sets[:2], {"ours": "x " * 9})
    ask(folder / "eval", [*sets, typed], ANSWERS)
    plain = EvalSet(name="text", path=text, speech="none", scorer="perplexity")
    ask(folder / "eval", [plain], {"base": "", "llm": "", "ours": ""})
    suite = Suite(name="mine", sets=(*sets, typed, plain))
    (folder / "eval/suite.yaml").write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    score_folder(folder / "eval")
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
    assert page.tags.count("audio") == 12 + 4
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
    assert f"{100 * (math.exp(0.1) - 1):+.1f}" in page.text and "identical" in page.text
    assert "Alarm: it lost some of what the LLM could do on text." in page.text


def test_speech_stands_beside_its_typed_twin_and_the_cascade_with_the_gaps(run):
    page = read(run)
    assert "Cascade" in page.text and "This model, typed to" in page.text
    assert (
        "−75.0−" in page.text
    )  # its interval under it: two words of three are no exact match, all three mostly are


def test_the_largest_gap_between_groups_is_named(run):
    page = read(run)
    assert "asked: exact match by speaker" in page.text
    assert "No gap." in page.text  # both are wrong throughout
    found = read_run(run)
    better = [replace(s, value=0.5) if s.group == "him" else s for s in found.scores]
    text = Reader(serving(replace(found, scores=better))).text
    assert f"Largest gap, {HOSTILE} against him: 50.0 points, which chance alone might" in text
    assert "normaliser basic-2" in page.text


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
        "eval/before/results.json",
        "eval/results.json",
        "eval/items/calls.jsonl",
        "eval/predictions/ours/calls.jsonl",
        "eval/predictions/llm/text.jsonl",
        "../0.opus",
    ],
)
def test_what_is_missing_is_left_out(run, missing):
    (run / missing).unlink()
    read(run)


def test_an_evaluation_has_a_report_of_its_own(run, tmp_path):
    shutil.copytree(run / "eval", tmp_path / "alone")
    assert "How it learned" not in read(tmp_path / "alone").text
    assert "How it learned" in read(run / "eval").text


@pytest.mark.slow
def test_no_table_is_cut_on_a_laptop(run):
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1100, "height": 800})
        tab.goto(write_report(run).as_uri())
        cut = "tables => tables.filter(t => t.scrollWidth > t.clientWidth).map(t => t.innerText)"
        assert tab.eval_on_selector_all("section > .scroll", cut) == []
        browser.close()


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="nothing to report; name the folder of a run"):
        write_report(tmp_path)


def test_differences_mark_what_is_wrong_and_strike_what_is_missing():
    assert join(differences("Press six now.", "press sex now, <b>")) == (
        "press <del>six</del> <mark>sex</mark> now, <mark>&lt;b&gt;</mark> "
    )
    assert join(differences("Gone.", "")) == "<del>Gone.</del> "


def test_the_lot_gives_every_set_and_language_its_place(run):
    found = [one for one in heard(read_run(run)) if one.of.set == "calls"]
    drawn = drawn_by_lot(found, 3)
    assert {one.item.lang for one in drawn} == {"en", "it", "xx"}
    assert drawn == drawn_by_lot(found, 3)


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
