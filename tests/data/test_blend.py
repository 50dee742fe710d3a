import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicetextblender.data import blend as blending
from voicetextblender.data.blend import Blend

BLOCK = 64


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blending, "BLOCK", BLOCK)


def draws(blend, num):
    return [blend[n] for n in range(num)]


blends = st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 10)), min_size=1, max_size=4).map(
    lambda sources: ([size for size, _ in sources], [weight for _, weight in sources])
)


@settings(max_examples=30, deadline=None)
@given(blends, st.integers(0, 9), st.integers(0, 5 * BLOCK))
def test_a_draw_depends_on_the_seed_and_its_number_alone(sources, seed, number):
    history = Blend(*sources, seed)
    draws(history, 3 * BLOCK)
    assert history[number] == Blend(*sources, seed)[number]


def test_another_seed_is_another_order():
    sizes, weights = [20, 20], [1, 1]
    assert draws(Blend(sizes, weights, 0), 40) != draws(Blend(sizes, weights, 1), 40)


@settings(max_examples=30, deadline=None)
@given(blends)
def test_every_block_has_each_source_by_its_share(sources):
    sizes, weights = sources
    blend = Blend(sizes, weights, 0)
    for start in (0, BLOCK):
        counts = Counter(blend[n].source for n in range(start, start + BLOCK))
        for source, weight in enumerate(weights):
            share = BLOCK * weight / sum(weights)
            assert counts[source] >= 1
            assert abs(counts[source] - share) <= len(weights)


def test_shares_that_a_block_can_hold_are_exact():
    counts = Counter(draw.source for draw in draws(Blend([5, 5, 5], [4, 2, 2], 0), BLOCK))
    assert counts == {0: 32, 1: 16, 2: 16}


def test_sources_of_equal_weight_never_drift_apart():
    source = np.array([draw.source for draw in draws(Blend([7, 30], [1, 1], 3), 20 * BLOCK)])
    drift = np.cumsum(np.where(source == 0, 1, -1))
    assert np.abs(drift).max() <= 2


@settings(max_examples=30, deadline=None)
@given(blends)
def test_every_conversation_is_drawn_once_in_each_epoch(sources):
    blend = Blend(*sources, 0)
    drawn = Counter((d.source, d.epoch, d.index) for d in draws(blend, 4 * BLOCK))
    assert set(drawn.values()) == {1}
    for source, size in enumerate(blend.sizes):
        epochs = Counter(epoch for s, epoch, _ in drawn if s == source)
        last = max(epochs)
        assert sorted(epochs) == list(range(last + 1))
        assert all(epochs[epoch] == size for epoch in range(last))


def test_each_epoch_has_an_order_of_its_own():
    order = [draw.index for draw in draws(Blend([30], [1], 0), 60)]
    assert order[:30] != order[30:] and sorted(order[:30]) == sorted(order[30:])


def test_a_source_of_tiny_weight_is_still_drawn():
    blend = Blend([5, 5], [1, 1e-9], 0)
    assert [Counter(d.source for d in draws(blend, BLOCK))[1], blend.counts(BLOCK)[1]] == [1, 1]


@settings(max_examples=30, deadline=None)
@given(blends, st.integers(0, 3 * BLOCK))
def test_counts_are_what_would_be_counted(sources, num):
    blend = Blend(*sources, 0)
    counted = Counter(draw.source for draw in draws(blend, num))
    assert blend.counts(num) == [counted[source] for source in range(len(blend.sizes))]


def test_a_source_gives_no_more_epochs_than_it_may_and_the_others_take_its_share():
    blend = Blend([30, 10, 20], [2, 1, 1], 0, [1.5, None, 2])
    drawn = draws(blend, 6 * BLOCK)
    counts = Counter(draw.source for draw in drawn)
    assert (counts[0], counts[2]) == (45, 40)
    assert all(draw.source == 1 for draw in drawn[-2 * BLOCK :])
    first = Counter(draw.source for draw in drawn[:BLOCK])
    assert (first[0], first[1], first[2]) == (32, 16, 16)
    assert Counter((d.index, d.epoch) for d in drawn if d.source == 2) == Counter(
        (index, epoch) for index in range(20) for epoch in range(2)
    )
    assert [blend[n] for n in (300, 5, 130)] == [drawn[n] for n in (300, 5, 130)]
    for num in (0, 70, 200, 6 * BLOCK):
        counted = Counter(draw.source for draw in drawn[:num])
        assert blend.counts(num) == [counted[source] for source in range(3)]


def test_a_blend_in_which_every_source_ends_is_refused():
    with pytest.raises(ValueError, match="every source of the blend has 'epochs'.*at least one"):
        Blend([3, 4], [1, 1], 0, [1, 2])


def test_a_blend_travels_to_another_process():
    blend = Blend([30, 10], [2, 1], 5, [1, None])
    assert draws(pickle.loads(pickle.dumps(blend)), 100) == draws(blend, 100)
