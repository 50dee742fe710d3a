from itertools import islice

import pytest
import torch

from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.dist import ALONE
from voicetextblender.train.feed import Feed, build_hearing_loader
from voicetextblender.train.state import Position

BEGINNING = Position()


@pytest.fixture
def take(recipe):
    def take(num, position=BEGINNING, **train):
        settings = recipe(**{"ctc_tokens": 20} | train)
        processor = SpeechLMProcessor.from_parts(settings.model)
        return list(islice(Feed(settings, processor, position, ALONE), num))

    return take


def test_each_row_is_followed_by_clips_of_its_own_whose_words_are_known(take):
    for rows, _ in take(5, rows_per_step=2):
        assert len(rows) == 2
        for row in rows:
            assert row.extra_clips > 0
            assert None not in row.ctc_lens[-row.extra_clips :]
            own = len(row.clip_lens) - row.extra_clips
            places = sum(-(-n // 8) for n in row.clip_lens[:own])
            assert places < len(row.input_ids)


@pytest.mark.parametrize("at", [1, 3])
def test_what_is_heard_resumes_too(take, at):
    whole = take(5)
    resumed = take(5 - at, whole[at - 1][1])
    for (ours, position), (theirs, same) in zip(whole[at:], resumed, strict=True):
        assert position == same and position.heard
        assert torch.equal(ours[0].features, theirs[0].features)


def test_clips_that_skip_the_llm_are_drawn_apart_from_those_of_the_rows(take):
    with_more, without = take(3), take(3, ctc_tokens=0)
    for (ours, _), (theirs, position) in zip(with_more, without, strict=True):
        assert torch.equal(ours[0].input_ids, theirs[0].input_ids)
        assert not position.heard


def test_only_sources_with_twins_are_compared_with_what_is_typed(recipe):
    settings = recipe(kl_twin_weight=1.0, spec_augment=None)
    processor = SpeechLMProcessor.from_parts(settings.model)
    asr = settings.blend[:1]
    for twins in (True, False):
        blend = tuple(source.model_copy(update={"twins": twins}) for source in asr)
        feed = Feed(settings.model_copy(update={"blend": blend}), processor, BEGINNING, ALONE)
        ((row,), _) = next(iter(feed))
        assert (row.twins is not None) == twins


def test_a_blend_without_anything_to_hear_is_refused(recipe):
    settings = recipe(ctc_tokens=20)
    silent = settings.model_copy(update={"blend": settings.blend[1:]})
    processor = SpeechLMProcessor.from_parts(settings.model)
    with pytest.raises(ValueError, match="ctc_tokens is 20, but no source .* set train.ctc_tok"):
        build_hearing_loader(silent, processor)
