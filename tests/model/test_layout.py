import torch
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.model.layout import ROUND, complete, row_size


@given(st.integers(1, 100_000))
def test_a_row_is_made_little_longer_and_whole(num):
    size = row_size(num)
    assert size % ROUND == 0 and num <= size < max(num + ROUND, num * 9 / 8)


def test_rows_come_in_few_sizes():
    assert len({row_size(num) for num in range(1, 8193)}) == 8 + 5 * 8


def test_what_completes_a_row_is_a_clip_of_zeros():
    row, lens = complete(torch.ones(40, 2), (30, 10))
    assert lens == (30, 10, 24) and row.shape == (64, 2) and not row[40:].any()
    assert complete(row, (64,)) == (row, (64,))
