import pytest
import torch
from torch.nn import functional as F

from voicetextblender.train import loss as losses
from voicetextblender.train.loss import ctc_loss, kl_losses, token_losses

V, E, BLANK = 40, 8, 3


@pytest.fixture
def table():
    return torch.randn(V, E, generator=torch.Generator().manual_seed(1))


def hidden_states(n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, E, generator=generator).requires_grad_()


@pytest.mark.parametrize("chunk", [1, 3, 7, 1024])
def test_the_loss_of_each_token_is_its_cross_entropy_whatever_the_chunk(table, chunk, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", chunk)
    targets = torch.randint(V, (7,))
    weights = torch.rand(7)
    ours, theirs = hidden_states(7), hidden_states(7)
    per_token = token_losses(ours, targets, lambda hidden: hidden @ table.T)
    expected = F.cross_entropy(theirs @ table.T, targets, reduction="none")
    torch.testing.assert_close(per_token, expected)
    (per_token * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_losses_are_in_float32_even_of_half_precision_logits(table):
    hidden = hidden_states(4).bfloat16()
    assert token_losses(hidden, torch.zeros(4).long(), lambda h: h @ table.T.bfloat16()).dtype == (
        torch.float32
    )


def test_no_supervised_token_is_no_loss(table):
    empty = token_losses(hidden_states(0), torch.zeros(0).long(), lambda hidden: hidden @ table.T)
    assert empty.shape == (0,)


LENS, TARGETS = (6, 5, 4), [[5, 5, 9], [7, 5], [30]]


def words(targets):
    return [None if target is None else torch.tensor(target).long() for target in targets]


def flat(targets):
    return torch.cat(words(targets))


def ctc(embeds, lens, targets, table, negatives=None, scale=1.0):
    negatives = torch.arange(V) if negatives is None else negatives
    return ctc_loss(embeds, lens, words(targets), table, BLANK, negatives, scale)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_with_every_token_as_a_negative_it_is_ctc_over_the_vocabulary(table, scale):
    ours, theirs = hidden_states(sum(LENS)), hidden_states(sum(LENS))
    loss, num_targets = ctc(ours, LENS, TARGETS, table, scale=scale)
    log_probs = (scale * theirs @ table.T).log_softmax(-1)
    expected = F.ctc_loss(
        torch.nn.utils.rnn.pad_sequence(log_probs.split(LENS)),
        flat(TARGETS),
        torch.tensor(LENS),
        torch.tensor([3, 2, 1]),
        blank=BLANK,
        reduction="sum",
    )
    assert num_targets == 6
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_with_fewer_negatives_it_is_ctc_over_these_the_targets_and_the_blank(table):
    embeds = hidden_states(sum(LENS))
    negatives = torch.tensor([0, 9, 12, 12])
    loss, _ = ctc(embeds, LENS, TARGETS, table, negatives)
    others = [n for n in range(V) if n not in {0, 9, 12, 5, 7, 30, BLANK}]
    logits = (embeds @ table.T).index_fill(1, torch.tensor(others), float("-inf"))
    expected = F.ctc_loss(
        torch.nn.utils.rnn.pad_sequence(logits.log_softmax(-1).split(LENS)),
        flat(TARGETS),
        torch.tensor(LENS),
        torch.tensor([3, 2, 1]),
        blank=BLANK,
        reduction="sum",
    )
    torch.testing.assert_close(loss, expected)


def test_the_loss_of_several_clips_is_the_sum_of_each(table):
    embeds = hidden_states(sum(LENS)).detach()
    whole, _ = ctc(embeds, LENS, TARGETS, table)
    each = [
        ctc(clip, (len(clip),), [target], table)[0]
        for clip, target in zip(embeds.split(LENS), TARGETS, strict=True)
    ]
    torch.testing.assert_close(whole, sum(each))


def test_clips_of_unknown_words_and_clips_too_short_for_theirs_do_not_count(table):
    embeds = hidden_states(12)
    # Two equal neighbours need a blank between them: 3 targets in 3 embeddings do not fit.
    targets = [None, [5, 5, 9], [7, 5], [8, 9, 8]]
    loss, num_targets = ctc(embeds, (4, 3, 3, 2), targets, table)
    expected, _ = ctc(embeds[7:10], (3,), [[7, 5]], table, torch.arange(V))
    assert num_targets == 2
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not embeds.grad[:7].any() and embeds.grad[7:10].any() and not embeds.grad[10:].any()


@pytest.mark.parametrize("flat_start", [0.0, 0.5])
def test_a_clip_in_which_nobody_speaks_is_all_blanks_and_counts_as_one(table, flat_start):
    embeds = hidden_states(9)
    loss, num_targets = ctc(embeds[5:], (4,), [[]], table)
    blanks = (embeds[5:] @ table.T).log_softmax(-1)[:, BLANK]
    assert num_targets == 1
    torch.testing.assert_close(loss, -blanks.sum())
    spoken = ctc_loss(
        embeds, (5, 4), words([[7], []]), table, BLANK, torch.arange(V), 1.0, flat_start
    )
    alone = ctc_loss(embeds[:5], (5,), words([[7]]), table, BLANK, torch.arange(V), 1.0, flat_start)
    assert spoken[1] == 2
    torch.testing.assert_close(spoken[0], alone[0] + loss)


def test_a_flat_start_adds_the_words_as_if_they_were_evenly_spaced(table):
    embeds = hidden_states(sum(LENS)).detach()
    bare, evenly = (
        ctc_loss(embeds, LENS, words(TARGETS), table, BLANK, torch.arange(V), 1.0, flat=share)[0]
        for share in (0.0, 0.5)
    )
    spoken = [[5, 5, 5, 5, 9, 9], [7, 7, 7, 5, 5], [30] * 4]
    log_probs = (embeds @ table.T).log_softmax(-1)
    expected = sum(
        len(target) * F.nll_loss(clip, torch.tensor(said))
        for clip, said, target in zip(log_probs.split(LENS), spoken, TARGETS, strict=True)
    )
    torch.testing.assert_close(evenly, bare + 0.5 * expected)


@pytest.mark.parametrize("targets", [[None], [[5, 5, 5, 5]]])
def test_if_no_clip_counts_the_loss_is_nought_and_so_is_the_gradient(table, targets):
    embeds = hidden_states(4)
    loss, num_targets = ctc(embeds, (4,), targets, table)
    loss.backward()
    assert (loss.item(), num_targets) == (0.0, 0)
    assert not embeds.grad.any()


def test_a_clip_that_just_holds_its_words_has_a_finite_loss(table):
    loss, _ = ctc(hidden_states(4), (4,), [[5, 5, 9]], table)
    assert torch.isfinite(loss)


def test_kl_is_that_of_the_whole_distributions_and_zero_for_the_same(monkeypatch):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50)
    teacher, student = torch.randn(2, 7, 8)
    wanted, given = (head(h).softmax(-1) for h in (teacher, student))
    expected = (wanted * (wanted / given).log()).sum(-1)
    monkeypatch.setattr("voicetextblender.train.loss.CHUNK", 3)
    torch.testing.assert_close(kl_losses(teacher, student, head), expected)
    assert not kl_losses(teacher, teacher, head).any()
