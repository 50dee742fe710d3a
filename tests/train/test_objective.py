import pytest
import torch

from voicetextblender.batch import IGNORE, collate, with_clips, with_silence
from voicetextblender.model.splice import audio_mask
from voicetextblender.train.dist import ALONE
from voicetextblender.train.feed import build_loader
from voicetextblender.train.loop import begin
from voicetextblender.train.objective import TERMS
from voicetextblender.train.tally import Tally

WEIGHED = {"kl_weight": 0.5, "kl_twin_weight": 0.5, "spec_augment": None, "flat_start": 0}


@pytest.fixture
def run(recipe):
    """A run with tiny rows; its dropout is off and its weights are moved from where they began."""

    def make(**train):
        run = begin(recipe(**WEIGHED | train), ALONE, resume=False)
        run.model.eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for own in run.parts.values():
                for parameter in own:
                    parameter += 0.1 * torch.randn_like(parameter)
        return run

    return make


def rows(run, num, **settings):
    recipe = run.recipe.model_copy(
        update={"train": run.recipe.train.model_copy(update={"rows_per_step": num} | settings)}
    )
    return list(next(build_loader(recipe, run.processor).steps()).batches)


def gradients(run, rows, counts, step=1000):
    run.optimizer.zero_grad()
    total = 0.0
    for row in rows:
        torch.manual_seed(0)
        loss = run.objective.loss(row, counts, step, Tally(["asr", "text"], ALONE.device))
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return total, {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}


def total(run, rows):
    return sum(run.objective.counts(row) for row in rows)


def test_a_step_has_the_same_gradient_however_its_conversations_are_packed(run):
    """A mean of each row's means would weigh short answers more; rows with no text, more still."""
    run = run(ctc_negatives=2000)  # nearly all of the vocabulary, whatever the row's own tokens
    one = rows(run, 1, tokens_per_batch=300)
    samples = [s for s in one[0].ids]
    loader = build_loader(run.recipe, run.processor)
    singles = [loader.draws[n] for n in range(60)]
    chosen = {s.id: s for s in singles if s.id in samples}
    packed = [collate([chosen[name] for name in samples], 8)]
    apart = [collate([chosen[name]], 8) for name in samples]
    torch.testing.assert_close(total(run, packed), total(run, apart))
    loss, together = gradients(run, packed, total(run, packed))
    loss_apart, each = gradients(run, apart, total(run, apart))
    assert loss == pytest.approx(loss_apart, rel=1e-2)
    for name, gradient in together.items():
        if name.startswith("llm"):  # CTC's negatives are drawn for each row; the rest is exact
            torch.testing.assert_close(gradient, each[name], atol=1e-5, rtol=1e-4)


def test_counts_are_known_before_anything_is_computed(run):
    run = run()
    row = rows(run, 1)[0]
    counts = dict(zip(TERMS, run.objective.counts(row).tolist(), strict=True))
    is_audio = audio_mask(row.input_ids, run.processor.audio_token_id)
    spoken = [bool(part.any()) for part in is_audio.split(list(row.seq_lens))][: len(row.ids)]
    lens = list(row.seq_lens)[: len(row.ids)]
    supervised = (row.labels != IGNORE).split(list(row.seq_lens))[: len(row.ids)]
    assert counts["tokens"] == (row.labels != IGNORE).sum()
    assert counts["typed"] == sum(n for n, s in zip(lens, spoken, strict=True) if not s)
    assert counts["spoken"] == sum(
        int(p.sum()) for p, s in zip(supervised, spoken, strict=True) if s
    )
    assert 0 < counts["heard"] <= len(row.ctc_targets)


def test_a_source_counts_by_its_weight(run, recipe):
    light, heavy = run(), run()
    heavy.objective.source_weights["text"] = 3.0
    row = rows(light, 1)[0]
    of_text = row.source_ids[row.labels != IGNORE] == row.sources.index("text")
    counts = [one.objective.counts(row)[0] for one in (light, heavy)]
    assert counts[1] - counts[0] == 2 * of_text.sum()
    only = recipe(kl_weight=0)
    weighed = only.blend[0].model_copy(update={"loss_weight": 2.0})
    built = begin(only.model_copy(update={"blend": (weighed, only.blend[1])}), ALONE, False)
    assert built.objective.source_weights == {"asr": 2.0, "text": 1.0}


def test_clips_behind_the_row_add_to_ctc_and_leave_the_llm_alone(run):
    run = run()
    row, other = rows(run, 2)
    both = with_clips(row, other)
    counts, more = run.objective.counts(row), run.objective.counts(both)
    heard = TERMS.index("heard")
    assert more[heard] > counts[heard]
    assert torch.equal(more[[0, 2, 3]], counts[[0, 2, 3]])
    _, plain = gradients(run, [row], counts)
    _, extra = gradients(run, [both], counts)
    is_same = {n: torch.allclose(g, extra[n], atol=1e-5, rtol=1e-3) for n, g in plain.items()}
    assert all(same for name, same in is_same.items() if name.startswith("llm"))
    assert not any(same for name, same in is_same.items() if name.endswith("up.weight"))


def test_a_silent_clip_changes_no_gradient(run):
    run = run()
    row = rows(run, 1)[0]
    counts = run.objective.counts(row)
    assert torch.equal(run.objective.counts(with_silence(row)), counts)
    before, after = (gradients(run, [one], counts) for one in (row, with_silence(row)))
    assert before[0] == pytest.approx(after[0], rel=1e-5)
    for name, gradient in before[1].items():
        torch.testing.assert_close(gradient, after[1][name], atol=1e-5, rtol=1e-4)


def test_a_model_that_is_its_llm_is_near_it_and_one_that_hears_otherwise_is_not(run, recipe):
    new = begin(recipe(**WEIGHED), ALONE, resume=False)
    far = run()
    row = rows(new, 1)[0]
    for one, is_near in ((new, True), (far, False)):
        one.model.eval()
        tally = Tally(["asr", "text"], ALONE.device)
        one.objective.loss(row, one.objective.counts(row), 0, tally)
        assert (tally.sums["kl"] / tally.sums["kl_tokens"] < 1e-5) == is_near
        assert tally.sums["kl_twin"] > 0  # even a new adapter's embeddings are not the words
        assert tally.sums["kl_tokens"] > 0 and tally.sums["kl_twin_tokens"] > 0


def test_twins_are_the_typed_conversations_at_the_answers(run):
    run = run()
    row = rows(run, 1)[0]
    spoken = row.twins.is_spoken
    typed = row.twins.input_ids[row.twins.at]
    assert torch.equal(typed[~spoken], row.input_ids[row.twins.own[~spoken]])
    assert (row.labels[row.twins.own[spoken]] != IGNORE).all()
    assert not audio_mask(row.twins.input_ids, run.processor.audio_token_id).any()
    begins = row.twins.input_ids[row.twins.position_ids == 0]
    assert len(begins) == len(row.ids)


def test_where_a_part_rests_it_has_no_gradient(run):
    run = run(adapter_first=3)
    row = rows(run, 1)[0]
    _, found = gradients(run, [row], run.objective.counts(row), step=2)
    assert found and all(name.startswith("adapter") for name in found)
