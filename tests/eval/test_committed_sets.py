"""The sets and suites that the project ships can be asked, and their checks are fair."""

from pathlib import Path

import pytest

from voicetextblender.data.records import Records, load_clips
from voicetextblender.eval.checks import check, slot_counts
from voicetextblender.eval.generators import FROM_A_FILE, GENERATORS
from voicetextblender.eval.scorers import scorer
from voicetextblender.eval.suite import load_suite, reference

ROOT = Path(__file__).parents[2]
SUITES = sorted((ROOT / "suites").glob("*.yaml"))


def read(name):
    records = Records(str(ROOT / "data/eval" / name))
    return [records[place] for place in range(len(records))]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_names_files_generators_and_scorers_that_are_there(path):
    for of in load_suite(path).sets:
        assert scorer(of.scorer)
        assert of.path is None or "/runs/" in of.path or Path(of.path).is_file(), of.name
        if of.make:
            assert of.make in GENERATORS and (of.make in FROM_A_FILE) == (of.path is not None)


def test_a_question_is_answered_by_its_reference_and_never_by_itself():
    items = read("questions.jsonl")
    assert len({item.id for item in items}) == len(items) > 100
    for item in items:
        assert check(item, reference(item)) == 1.0, item
        assert check(item, item.messages[0].parts[0].text) == 0.0, item


def test_read_english_is_read_and_written_down():
    items = read("read-english.jsonl")
    assert len(items) == 32
    for item in items:
        (samples,) = load_clips(item)
        assert 0.05 < len(reference(item).split()) / len(samples) * 16_000 / 60 * 20 < 2.0, item.id


def test_every_order_has_slots_that_its_reference_fills():
    items = read("coffee.jsonl")
    assert len(items) == 93
    assert all(slot_counts(item, reference(item)).f1 == 1.0 for item in items)
    assert sum(slot_counts(item, "").wanted for item in items) > 200
