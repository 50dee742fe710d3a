import json
import threading
from itertools import islice

import pytest
import torch

from voicetextblender.batch import IGNORE, Sample
from voicetextblender.data.loader import Loader
from voicetextblender.data.records import Records

BUDGET = 40


def encode(conversation, source, draw):
    """As many tokens as the conversation's id says; the draw's number as the first."""
    n = int(conversation.id.split("-")[1])
    return Sample(conversation.id, source, "text", [draw, *[0] * (n - 1)], [IGNORE] * n, [], [])


@pytest.fixture
def build(tmp_path):
    def loader(encode=encode, lengths=range(1, 20)):
        records = []
        for source in ("a", "b"):
            path = tmp_path / f"{source}.jsonl"
            turns = [{"role": "user", "content": "hi"}]
            lines = [json.dumps({"id": f"{source}-{n}", "messages": turns}) for n in lengths]
            path.write_text("\n".join(lines))
            records.append(Records(str(path)))
        return Loader(
            ["a", "b"],
            records,
            [2, 1],
            encode,
            tokens_per_batch=BUDGET,
            num_mel_bins=4,
            seed=0,
        )

    return loader


def steps(loader, num, draw=0):
    return list(islice(loader.steps(draw), num))


def test_no_row_exceeds_the_budget_and_none_could_take_one_more(build):
    loader = build()
    rows = steps(loader, 30)
    for row, after in zip(rows, rows[1:], strict=False):
        assert len(row.batch.input_ids) <= BUDGET
        assert len(row.batch.input_ids) + after.batch.seq_lens[0] > BUDGET


def test_conversations_come_in_the_order_of_the_blend(build):
    loader = build()
    rows = steps(loader, 10)
    ids = [name for row in rows for name in row.batch.ids]
    drawn = [loader.blend[n] for n in range(len(ids))]
    assert ids == [loader.records[d.source][d.index].id for d in drawn]
    assert rows[-1].next_draw == len(ids)


def test_each_draw_is_told_its_number(build):
    row = steps(build(), 1)[0].batch
    assert row.input_ids[row.position_ids == 0].tolist() == list(range(len(row.ids)))


@pytest.mark.parametrize("at", range(1, 8))
def test_a_stream_that_is_resumed_is_the_one_that_was_not_interrupted(build, at):
    whole = steps(build(), 9)
    resumed = steps(build(), 9 - at, draw=whole[at - 1].next_draw)
    for one, other in zip(whole[at:], resumed, strict=True):
        assert one.next_draw == other.next_draw
        assert one.batch.ids == other.batch.ids
        assert torch.equal(one.batch.input_ids, other.batch.input_ids)


def test_a_conversation_that_never_fits_is_refused_by_name(build):
    with pytest.raises(
        ValueError,
        match=r"conversation '[ab]-41' of source '[ab]' has 41 posit.*"
        r"more than train.tokens_per_batch=40; raise the budget",
    ):
        steps(build(lengths=[41]), 1)


def test_one_that_fits_just_so_is_taken(build):
    assert steps(build(lengths=[40]), 1)[0].batch.seq_lens == (40,)


def test_an_error_while_a_row_is_made_ahead_reaches_the_caller(build):
    def broken(conversation, source, draw):
        if draw > 15:
            raise ValueError(f"draw {draw} is broken")
        return encode(conversation, source, draw)

    with pytest.raises(ValueError, match="draw 16 is broken"):
        steps(build(broken), 30)


def test_a_stream_that_is_left_ends_its_thread(build):
    before = threading.active_count()
    stream = build().steps()
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_steps_made_ahead_are_the_same_steps(build):
    at_once, ahead = (islice(build().steps(3, ahead=ahead), 12) for ahead in (False, True))
    for one, other in zip(at_once, ahead, strict=True):
        assert one.next_draw == other.next_draw and one.batch.ids == other.batch.ids
        torch.testing.assert_close(one.batch.input_ids, other.batch.input_ids)
