import json

import pytest
import yaml

from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.eval.predict import Prediction, predictions_file, write_predictions
from voicetextblender.eval.scores import read_scores, score_files, score_folder
from voicetextblender.eval.suite import EvalSet, Suite, write_items

HEARD = {
    "ours": ["press sex", "hello", "premi", "a"],
    "whisper": ["press six", "hello", "premi sei", "b"],
}
SAID = [("press six", "en", "f"), ("hello", "en", "m"), ("premi sei", "it", "f"), ("a", "xx", "m")]


@pytest.fixture
def out(tmp_path):
    """A folder in which four clips in three languages were heard by two systems."""
    talks = [
        Conversation(
            f"c{n}",
            (user("Say:", Audio(f"{n}.wav", text=said)), assistant(said)),
            *("asr", lang, {"gender": gender}),
        )
        for n, (said, lang, gender) in enumerate(SAID)
    ]
    (tmp_path / "calls.jsonl").write_text("\n".join(map(to_line, talks)))
    of = EvalSet(
        name="calls",
        path=str(tmp_path / "calls.jsonl"),
        speech="real",
        scorer="wer",
        by=("lang", "gender", "no such"),
    )
    folder = tmp_path / "out"
    items = write_items(of, folder)
    suite = Suite(name="mine", sets=(of,))
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    for system, heard in HEARD.items():
        found = [
            Prediction(item.id, "", system, "greedy", words, audio_s=2.0, seconds=0.5)
            for item, words in zip(items, heard, strict=True)
        ]
        write_predictions(predictions_file(folder, system, "calls"), found)
    return folder


def find(scores, **wanted):
    defaults = {"metric": "wer", "against": None, "by": None, "system": "ours"} | wanted
    return [s for s in scores if all(getattr(s, k) == v for k, v in defaults.items())]


def test_every_row_says_how_it_was_made(out):
    scores = score_folder(out)
    assert read_scores(out / "results.json") == scores
    for row in json.loads((out / "results.json").read_text()):
        assert row["model"] in HEARD and row["decoding"] == "greedy"
        assert row["scored_with"].startswith("normaliser basic-2, jiwer")
        assert len(row["data_sha256"]) == 64 and row["num_items"] > 0
        assert row["low"] <= row["value"] <= row["high"]


def test_groups_are_those_of_the_language_and_of_any_field_of_meta(out):
    scores = score_folder(out)
    (whole,) = find(scores)
    assert (whole.value, whole.num_items, whole.audio_s, whole.seconds) == (2 / 6, 4, 8.0, 2.0)
    assert {s.group: s.value for s in find(scores, by="lang")} == {"en": 1 / 3, "it": 0.5, "xx": 0}
    assert {s.group: s.num_items for s in find(scores, by="gender")} == {"f": 2, "m": 2}
    assert not find(scores, by="no such")


def test_systems_are_compared_on_the_same_items(out):
    (gap,) = find(score_folder(out), against="whisper")
    assert gap.value == pytest.approx(2 / 6 - 1 / 6)
    (back,) = find(score_folder(out), system="whisper", against="ours")
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))


def test_scoring_twice_writes_the_same_bytes(out):
    score_folder(out)
    first = (out / "results.json").read_bytes()
    score_folder(out)
    assert (out / "results.json").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "no prediction for 1 of 4 items, such as 'c3'; run vtb eval"),
        (lambda lines: [*lines, lines[0].replace("c0", "zz")], "such as 'zz', which no item has"),
        (lambda lines: [*lines, lines[0]], "ids twice; predictions and references must be"),
    ],
)
def test_predictions_of_other_items_are_refused(out, change, message):
    path = predictions_file(out, "ours", "calls")
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match=message):
        score_folder(out)


def test_a_folder_without_a_suite_is_no_evaluation(tmp_path):
    with pytest.raises(ValueError, match="no suite.yaml here, so it is no evaluation"):
        score_folder(tmp_path)


def test_what_is_kept_of_another_system_is_the_share_of_what_that_one_gets_right(tmp_path):
    check = {"check": {"name": "says", "any_of": ["yes"]}}
    talks = [Conversation(f"q{n}", (user("?"), assistant("yes")), meta=check) for n in range(4)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(to_line, talks)))
    of = EvalSet(
        name="asked", path=str(tmp_path / "asked.jsonl"), speech="synthetic", scorer="check"
    )
    items = write_items(of, tmp_path)
    suite = Suite(name="mine", sets=(of,))
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    said = {"ours": ["yes", "no", "no", "yes"], "base": ["yes", "yes", "no", "no"]}
    for system, answers in said.items():
        found = [Prediction(i.id, "", "m", "d", a) for i, a in zip(items, answers, strict=True)]
        write_predictions(predictions_file(tmp_path, system, "asked"), found)
    scores = score_folder(tmp_path)
    (kept,) = find(scores, metric="kept_of_base")
    assert (kept.value, kept.num_items) == (0.5, 2)
    assert not find(scores, metric="kept_of_ours", system="base")


def test_answers_of_anybody_are_scored_against_a_file_of_references(out, tmp_path):
    lines = [json.dumps({"id": f"c{n}", "answer": said}) for n, said in enumerate(HEARD["ours"])]
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines) + "\n")
    kind = ("wer", "basic", False)
    rows = score_files(tmp_path / "theirs.jsonl", tmp_path / "calls.jsonl", *kind)
    assert (rows[0].system, rows[0].metric, rows[0].value) == ("theirs", "wer", 2 / 6)
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match="no prediction for 2 of 4 items, such as 'c2'"):
        score_files(tmp_path / "theirs.jsonl", tmp_path / "calls.jsonl", *kind)
