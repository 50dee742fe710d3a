import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.eval.metrics import (
    Metric,
    align,
    character_edits,
    difference,
    error_rate,
    estimate,
    mean,
    word_edits,
)
from voicetextblender.text import normalise

REFERENCES = ["the cat sat on the mat", "press six to play", "hello"]
HYPOTHESES = ["the cat sat on mat today", "", "hello hello"]
WORDS = st.lists(st.sampled_from(["a", "b", "c's", "Été", "twenty-one", "–"]), max_size=6)


def points(worth) -> Metric:
    return Metric("points", np.array([(w, 1.0) for w in worth]).reshape(-1, 2), mean, "made")


def test_counts_and_rates_are_jiwers_own():
    ours, theirs = word_edits(REFERENCES, HYPOTHESES), jiwer.process_words(REFERENCES, HYPOTHESES)
    counts = [theirs.substitutions, theirs.deletions, theirs.insertions, 11]
    assert ours.sum(0).tolist() == counts
    assert error_rate(ours.sum(0)) == theirs.wer
    characters = character_edits(REFERENCES, HYPOTHESES)
    assert error_rate(characters.sum(0)) == jiwer.cer(REFERENCES, HYPOTHESES)


def test_an_empty_hypothesis_has_lost_every_word_and_character():
    assert word_edits(["to be or not"], [""]).tolist() == [[0, 4, 0, 4]]
    assert character_edits(["to be"], [""]).tolist() == [[0, 5, 0, 5]]


def test_the_interval_holds_the_value_and_depends_on_the_seed_alone():
    metric = points([n % 3 / 2 for n in range(40)])
    found = estimate(metric, seed=1)
    assert found.value == pytest.approx(metric.sums[:, 0].mean())
    assert found.low < found.value < found.high
    assert estimate(metric, seed=1) == found != estimate(metric, seed=2)


def test_the_interval_is_that_of_the_normal_distribution_where_items_are_many():
    worth = np.random.default_rng(0).random(4000)
    found, spread = estimate(points(worth)), 1.96 * worth.std() / np.sqrt(len(worth))
    assert found.high - found.value == pytest.approx(spread, rel=0.1)
    assert found.value - found.low == pytest.approx(spread, rel=0.1)


def test_equal_items_leave_no_doubt_and_no_items_have_no_interval():
    found = estimate(points([0.25] * 9))
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="points: no items.*score at least one"):
        estimate(points([]))


def test_a_difference_is_that_of_the_same_items():
    hard = [n % 2 for n in range(50)]
    easier = [min(1, h + 0.1) for h in hard]
    found = difference(points(easier), points(hard))
    assert found.value == pytest.approx(0.05) and found.low > 0.03  # both are as hard, item by item
    assert difference(points(hard), points(hard)).high == 0.0


def test_some_items_are_scored_as_if_they_were_all():
    metric = points([0, 1, 1, 0.5])
    assert estimate(metric.of([1, 2])).value == 1.0


def test_an_alignment_keeps_the_spelling_of_both_texts():
    aligned = align("Twenty-one dogs, it's said", "twenty one Dogs – is it")
    assert [(a.reference, a.hypothesis) for a in aligned if a.is_equal] == [
        (("Twenty-one", "dogs,"), ("twenty", "one", "Dogs"))
    ]


@given(WORDS, WORDS)
def test_an_alignment_is_equal_throughout_only_without_errors(reference, hypothesis):
    reference, hypothesis = " ".join(reference), " ".join(hypothesis)
    if normalise(reference):
        errors = word_edits([normalise(reference)], [normalise(hypothesis)])[0, :3].sum()
        assert all(a.is_equal for a in align(reference, hypothesis)) == (not errors)


@given(WORDS, WORDS)
def test_an_alignment_loses_no_spoken_word(reference, hypothesis):
    aligned = align(" ".join(reference), " ".join(hypothesis))
    assert [w for a in aligned for w in a.reference] == [w for w in reference if w != "–"]
    assert [w for a in aligned for w in a.hypothesis] == [w for w in hypothesis if w != "–"]
