from itertools import chain, count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.batch import IGNORE, Sample
from voicetextblender.data.pack import Place, best_fit, pack

START = Place(0)


def sample(number, n):
    return Sample(str(number), "source", "text", [0] * n, [IGNORE] * n, [], [])


def rows(length_of, budget, place=START, stride=1):
    numbers = chain(place.waiting, count(place.draw, stride))
    samples = ((k, sample(k, length_of(k)) if length_of(k) else None) for k in numbers)
    return pack(samples, place, stride, budget)


def realistic(number):
    """Lengths like those of real data: half of them clips of about 6 s, half text to 2,000."""
    random = np.random.default_rng(number)
    if number % 2:
        return int(12.5 * min(30, random.lognormal(1.8, 0.7))) + 60
    return int(np.clip(random.lognormal(5, 1), 20, 2000))


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(0, 60))
def test_the_best_fit_is_as_good_as_that_of_trying_everything(lens, room):
    chosen = best_fit(lens, room)
    assert len(set(chosen)) == len(chosen) and chosen == sorted(chosen)
    sums = {0}
    for n in lens:
        sums |= {total + n for total in sums}
    assert sum(lens[n] for n in chosen) == max(total for total in sums if total <= room)


def test_of_equally_good_choices_the_earlier_lengths_are_taken():
    assert best_fit([5, 3, 5, 2], 8) == [0, 1]
    assert best_fit([4, 4, 4], 9) == [0, 1]


@pytest.mark.parametrize("budget", [2048, 4096, 8192])
def test_rows_of_realistic_lengths_waste_less_than_one_position_in_two_hundred(budget):
    filled = [sum(map(len, row)) for row, _ in islice(rows(realistic, budget), 60)]
    assert max(filled) <= budget
    assert sum(filled) >= 0.995 * 60 * budget


def test_each_draw_is_packed_once_and_none_waits_for_ever():
    packed = [int(s.id) for row, _ in islice(rows(realistic, 4096), 100) for s in row]
    assert len(set(packed)) == len(packed)
    assert set(range(max(packed) // 2)) <= set(packed)
    late = [number - place for place, number in enumerate(packed)]
    assert max(map(abs, late)) < 100


@pytest.mark.parametrize("at", [1, 2, 7])
def test_a_stream_goes_on_from_the_place_after_any_row(at):
    whole = list(islice(rows(realistic, 2048, stride=3, place=Place(1)), 12))
    place = whole[at - 1][1]
    resumed = list(islice(rows(realistic, 2048, place, stride=3), 12 - at))
    assert [(list(map(len, r)), p) for r, p in resumed] == [
        (list(map(len, r)), p) for r, p in whole[at:]
    ]
    assert {(number - 1) % 3 for number in (place.draw, *place.waiting)} == {0}


def test_a_draw_that_is_left_out_leaves_no_trace():
    packed = [s for row, _ in islice(rows(lambda k: k % 5 and 30, 100), 9) for s in row]
    assert packed and all(int(s.id) % 5 for s in packed)
