from importlib.metadata import version

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.eval.old_metrics import (
    ErrorCounts,
    align,
    bootstrap_interval,
    character_errors,
    scored_with,
    total,
    utterance_word_errors,
    word_errors,
)
from voicetextblender.text import normalise

REFERENCES = ["the cat sat on the mat", "press six to play", "hello"]
HYPOTHESES = ["the cat sat on mat today", "", "hello hello"]
WORDS = st.lists(st.sampled_from(["a", "b", "c's", "Été", "twenty-one", "–"]), max_size=6)


def test_counts_and_rates_are_jiwers_own():
    ours, theirs = word_errors(REFERENCES, HYPOTHESES), jiwer.process_words(REFERENCES, HYPOTHESES)
    assert ours == ErrorCounts(theirs.substitutions, theirs.deletions, theirs.insertions, 11)
    assert ours.rate == theirs.wer
    assert character_errors(REFERENCES, HYPOTHESES).rate == jiwer.cer(REFERENCES, HYPOTHESES)


def test_an_empty_hypothesis_has_lost_every_word_and_character():
    assert word_errors(["to be, or not"], [""]) == ErrorCounts(0, 4, 0, 4)
    assert character_errors(["to be"], ["?"]) == ErrorCounts(0, 5, 0, 5)


@pytest.mark.parametrize("count", [word_errors, character_errors])
def test_a_reference_without_words_is_named(count):
    with pytest.raises(ValueError, match=r"reference 1 \('\?!'\) has no words"):
        count(["a", "?!"], ["a", "b"])


def test_the_whole_is_the_sum_of_its_utterances():
    assert total(utterance_word_errors(REFERENCES, HYPOTHESES)) == word_errors(
        REFERENCES, HYPOTHESES
    )
    assert total([]) == ErrorCounts(0, 0, 0, 0)


def test_the_interval_holds_the_rate_and_depends_on_the_seed_alone():
    counts = [ErrorCounts(n % 3, 0, 0, 5 + n % 4) for n in range(40)]
    low, high = bootstrap_interval(counts, seed=1)
    assert low < total(counts).rate < high
    assert bootstrap_interval(counts, seed=1) == (low, high) != bootstrap_interval(counts, seed=2)


def test_the_interval_narrows_as_utterances_are_added():
    few = [ErrorCounts(n % 2, 0, 0, 4) for n in range(10)]
    low, high = bootstrap_interval(few)
    narrow_low, narrow_high = bootstrap_interval(few * 10)
    assert narrow_high - narrow_low < (high - low) / 2


def test_equal_utterances_leave_no_doubt():
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 4)] * 9) == (0.25, 0.25)


def test_no_utterances_have_no_interval():
    with pytest.raises(ValueError, match="no utterances.*score at least one"):
        bootstrap_interval([])


def test_an_alignment_keeps_the_spelling_of_both_texts():
    aligned = align("Twenty-one dogs, it's said", "twenty one Dogs – is it")
    assert [(a.reference, a.hypothesis) for a in aligned if a.is_equal] == [
        (("Twenty-one", "dogs,"), ("twenty", "one", "Dogs"))
    ]


@given(WORDS, WORDS)
def test_an_alignment_is_equal_throughout_only_without_errors(reference, hypothesis):
    reference, hypothesis = " ".join(reference), " ".join(hypothesis)
    if normalise(reference):
        errors = word_errors([reference], [hypothesis]).errors
        assert all(a.is_equal for a in align(reference, hypothesis)) == (not errors)


@given(WORDS, WORDS)
def test_an_alignment_loses_no_spoken_word(reference, hypothesis):
    aligned = align(" ".join(reference), " ".join(hypothesis))
    assert [w for a in aligned for w in a.reference] == [w for w in reference if w != "–"]
    assert [w for a in aligned for w in a.hypothesis] == [w for w in hypothesis if w != "–"]


def test_scores_are_stamped_with_what_made_them():
    assert scored_with() == f"normaliser basic-1, jiwer {version('jiwer')}"
    assert scored_with("none") == f"normaliser none, jiwer {version('jiwer')}"
