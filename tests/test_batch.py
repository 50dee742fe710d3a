import pytest
import torch

from voicetextblender.batch import IGNORE, Sample, collate


def sample(name, source, ids, clips=(), targets=()):
    features = [torch.full((n, 3), float(n)) for n in clips]
    labels = [*ids[1:], IGNORE]
    return Sample(name, source, "asr", list(ids), labels, features, list(targets))


@pytest.fixture
def batch():
    return collate(
        [
            sample("a", "speech", [1, 9, 9, 2], [4, 2, 3], [[5, 6], None, []]),
            sample("b", "text", [3, 4]),
            sample("c", "speech", [9, 7, 8], [1], [[7]]),
        ],
        num_mel_bins=3,
    )


def test_conversations_stand_one_behind_the_other_and_nothing_is_padded(batch):
    assert batch.input_ids.tolist() == [1, 9, 9, 2, 3, 4, 9, 7, 8]
    assert batch.labels.tolist() == [9, 9, 2, IGNORE, 4, IGNORE, 7, 8, IGNORE]
    assert batch.seq_lens == (4, 2, 3)
    assert batch.ids == ("a", "b", "c")


def test_positions_restart_at_each_conversation(batch):
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]


def test_clips_and_their_words_stand_in_the_order_in_which_they_are_heard(batch):
    assert batch.clip_lens == (4, 2, 3, 1)
    assert batch.features[:, 0].tolist() == [4, 4, 4, 4, 2, 2, 3, 3, 3, 1]
    assert batch.ctc_lens == (2, None, 0, 1)
    assert batch.ctc_targets.tolist() == [5, 6, 7]
    words = [None if own is None else own.tolist() for own in batch.words_of_clips]
    assert words == [[5, 6], None, [], [7]]


def test_every_token_knows_its_source(batch):
    assert batch.sources == ("speech", "text")
    assert batch.source_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_types_and_shapes_do_not_depend_on_whether_there_is_speech(batch):
    silent = collate([sample("b", "text", [3, 4])], num_mel_bins=3)
    assert silent.features.shape == (0, 3)
    assert silent.ctc_targets.shape == (0,)
    for name in ("input_ids", "labels", "position_ids", "features", "ctc_targets", "source_ids"):
        assert getattr(silent, name).dtype == getattr(batch, name).dtype, name


def test_a_batch_moves_with_all_its_tensors(batch):
    moved = batch.to("meta")
    assert moved.input_ids.is_meta and moved.features.is_meta and moved.source_ids.is_meta
    assert moved.seq_lens == batch.seq_lens


def test_a_row_is_padded_to_its_length_by_a_sequence_that_nothing_scores(batch):
    samples = [sample("a", "speech", [1, 9, 2], [4]), sample("b", "text", [3, 4])]
    padded = collate(samples, 3, length=9)
    assert padded.padding == 4 and padded.seq_lens == (3, 2, 4)
    assert len(padded.input_ids) == len(padded.source_ids) == 9
    assert padded.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert padded.labels[-4:].tolist() == [IGNORE] * 4
    assert padded.sources_of_conversations == ["speech", "text"]
    assert collate(samples, 3, length=5).padding == batch.padding == 0


def test_each_conversation_knows_its_source(batch):
    assert batch.sources_of_conversations == ["speech", "text", "speech"]


def test_a_sample_is_as_long_as_its_tokens():
    assert len(sample("a", "text", [1, 2, 3])) == 3
