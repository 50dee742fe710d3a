import json
import multiprocessing
from dataclasses import dataclass
from itertools import islice

import pytest
import torch

from voicetextblender.batch import IGNORE, Sample
from voicetextblender.data.loader import Loader
from voicetextblender.data.records import Records
from voicetextblender.data.sources import Source

BUDGET = 40


def encode(conversation, source, draw):
    """As many tokens as the conversation's id says; the draw's number as the first."""
    n = int(conversation.id.split("-")[1])
    return Sample(conversation.id, source, "text", [draw, *[0] * (n - 1)], [IGNORE] * n, [], [])


@pytest.fixture
def build(tmp_path):
    def loader(encode=encode, lengths=range(1, 20), **settings):
        sources = []
        for source, weight in (("a", 2), ("b", 1)):
            path = tmp_path / f"{source}.jsonl"
            turns = [{"role": "user", "content": "hi"}]
            lines = [json.dumps({"id": f"{source}-{n}", "messages": turns}) for n in lengths]
            path.write_text("\n".join(lines))
            sources.append(Source(source, Records(str(path)), weight))
        return Loader(
            sources,
            encode,
            tokens_per_batch=BUDGET,
            num_mel_bins=4,
            seed=0,
            **settings,
        )

    return loader


def draws_of(batch):
    """The numbers of a row's draws, which `encode` puts first in every conversation."""
    return batch.input_ids[batch.position_ids == 0].tolist()[: len(batch.ids)]


def rows(loader, num, places=None, **settings):
    """The draws of every row of the next `num` steps."""
    steps = islice(loader.steps(places, **settings), num)
    return [[draws_of(batch) for batch in step.batches] for step in steps]


def test_every_row_is_as_long_as_the_budget_and_almost_full(build):
    batches = [batch for step in islice(build().steps(), 50) for batch in step.batches]
    assert {len(batch.input_ids) for batch in batches} == {BUDGET}
    assert sum(batch.padding for batch in batches) < 0.02 * 50 * BUDGET


def test_every_draw_of_the_blend_is_taken_once_and_told_its_number(build):
    loader = build()
    batches = [batch for step in islice(loader.steps(), 30) for batch in step.batches]
    numbers = [number for batch in batches for number in draws_of(batch)]
    assert len(set(numbers)) == len(numbers) and max(numbers) < len(numbers) + 40
    drawn = [loader.blend[n] for n in numbers]
    ids = [name for batch in batches for name in batch.ids]
    assert ids == [loader.draws.sources[d.source][d.index].id for d in drawn]


@pytest.mark.parametrize("at", range(1, 8))
def test_a_stream_that_is_resumed_is_the_one_that_was_not_interrupted(build, at):
    whole = list(islice(build(rows_per_step=2).steps(), 9))
    resumed = islice(build(rows_per_step=2).steps(whole[at - 1].places), 9 - at)
    for one, other in zip(whole[at:], resumed, strict=True):
        assert one.places == other.places
        for ours, theirs in zip(one.batches, other.batches, strict=True):
            assert ours.ids == theirs.ids and torch.equal(ours.input_ids, theirs.input_ids)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_share_the_rows_that_one_rank_would_make(build, num_ranks):
    alone = rows(build(rows_per_step=4), 6)
    shared = [
        rows(build(rows_per_step=4), 6, rank=r, num_ranks=num_ranks) for r in range(num_ranks)
    ]
    for step, whole in enumerate(alone):
        assert whole == [shared[lane % num_ranks][step][lane // num_ranks] for lane in range(4)]


def test_a_run_on_two_ranks_goes_on_on_one(build):
    whole = rows(build(rows_per_step=2), 8)
    places = {}
    for rank in range(2):
        *_, last = islice(build(rows_per_step=2).steps(rank=rank, num_ranks=2), 5)
        places |= last.places
    assert rows(build(rows_per_step=2), 3, places) == whole[5:]


def test_worker_processes_make_the_same_steps(build):
    here, there = rows(build(), 12), rows(build(workers=2), 12)
    assert here == there


def test_rows_that_the_ranks_cannot_share_are_refused(build):
    with pytest.raises(ValueError, match="rows_per_step is 3, which 2 ranks cannot share; make it"):
        build(rows_per_step=3).steps(num_ranks=2)


def test_a_conversation_that_never_fits_is_refused_by_name(build):
    with pytest.raises(
        ValueError,
        match=r"conversation '[ab]-41' of source '[ab]' has 41 posit.*"
        r"more than train.tokens_per_batch=40; raise the budget",
    ):
        rows(build(lengths=[41]), 1)


def test_conversations_that_never_fit_can_be_left_out_and_are_named(build):
    loader = build(lengths=[*range(1, 20), 41], over_long="skip")
    taken = [name for s in islice(loader.steps(), 30) for b in s.batches for name in b.ids]
    assert set(loader.too_long) == {"a-41", "b-41"} and not loader.broken
    assert taken and not {"a-41", "b-41"} & set(taken)


def test_one_that_fits_just_so_is_taken(build):
    assert next(build(lengths=[40]).steps()).batches[0].seq_lens == (40,)


@dataclass(frozen=True)
class broken:  # noqa: N801  # a function that can be sent to another process
    """Encode, but not conversations of some numbers."""

    numbers: tuple[int, ...]

    def __init__(self, *numbers):
        object.__setattr__(self, "numbers", numbers)

    def __call__(self, conversation, source, draw):
        if int(conversation.id.split("-")[1]) in self.numbers:
            raise ValueError(f"conversation '{conversation.id}' is broken")
        return encode(conversation, source, draw)


def test_a_broken_conversation_stops_the_run_with_its_name(build):
    with pytest.raises(ValueError, match="^conversation '[ab]-7' is broken$"):
        rows(build(broken(7)), 30)


def test_as_many_as_allowed_may_be_broken_and_are_named(build):
    loader = build(broken(7), max_broken=2)
    taken = [name for s in islice(loader.steps(), 30) for b in s.batches for name in b.ids]
    assert len(loader.broken) == 2 and not {"a-7", "b-7"} & set(taken)
    assert "conversation 'a-7' is broken" in loader.broken.values()
    with pytest.raises(
        ValueError, match="4 conversations could not be used, more than train.max_broken=3; the l"
    ):
        rows(build(broken(7, 8), max_broken=3), 30)


def test_a_source_of_nothing_but_broken_conversations_ends(build):
    with pytest.raises(ValueError, match="the last: conversation '[ab]-.' is broken"):
        rows(build(broken(1, 2), lengths=[1, 2], max_broken=50), 1)


def test_an_error_while_a_step_is_made_ahead_reaches_the_caller(build):
    with pytest.raises(ValueError, match="is broken"):
        rows(build(broken(7)), 30, ahead=True)


def test_a_stream_that_is_left_ends_its_process(build):
    stream = build().steps(ahead=True)
    next(stream)
    (maker,) = multiprocessing.active_children()
    stream.close()
    assert not maker.is_alive()


def test_a_process_that_is_killed_while_it_makes_steps_is_an_error(build):
    stream = build().steps(ahead=True)
    next(stream)
    (maker,) = multiprocessing.active_children()
    maker.kill()
    with pytest.raises(ValueError, match="a data worker was killed, .* lower train.workers"):
        list(islice(stream, 10))


def test_what_was_left_out_is_known_of_steps_that_were_made_ahead(build):
    loader = build(broken(7), max_broken=2)
    list(islice(loader.steps(ahead=True), 30))
    assert set(loader.broken) == {"a/6", "b/6"}


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_made_ahead_are_the_same_steps(build, workers):
    assert rows(build(), 12) == rows(build(workers=workers), 12, ahead=True)
