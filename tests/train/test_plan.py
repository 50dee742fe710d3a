import pytest
from rich.console import Console

from voicetextblender.train.log import read_log
from voicetextblender.train.loop import train
from voicetextblender.train.plan import make_plan, show_plan


def test_the_plan_is_what_then_happens(recipe, corpus):
    settings = recipe(steps=12, save_every=100)
    plan = make_plan(settings, measure=False)
    train(settings)
    log = read_log(corpus / "run")
    for source, share in zip(plan.sources, (2 / 3, 1 / 3), strict=True):
        assert source.share == pytest.approx(share, abs=0.05)
        drawn = sum(line["conversations_by_source"].get(source.name, 0) for line in log)
        assert source.draws == pytest.approx(drawn, rel=0.15)
        scored = sum(line["tokens_by_source"].get(source.name, 0) for line in log)
        assert source.supervised == pytest.approx(scored, rel=0.2)
        assert source.epochs == source.draws / 6


def test_hours_are_those_of_the_clips(recipe):
    (speech, text) = make_plan(recipe(), measure=False).sources
    assert speech.hours == pytest.approx(speech.draws * 0.65 / 3600)  # 0.4, 0.5, … 0.9 s
    assert text.hours == 0


def test_a_measured_plan_leaves_nothing_behind_and_shows_time_and_memory(recipe, corpus):
    plan = make_plan(recipe())
    assert plan.cost and plan.cost.step_s > 0 and plan.cost.memory_gb > 0.13
    assert not (corpus / "run").exists()
    console = Console(record=True, width=120)
    show_plan(plan, console)
    shown = console.export_text()
    assert "asr" in shown and "s a step on CPU" in shown and "GB at the peak" in shown


def test_steps_that_skip_the_llm_are_planned_with_the_time_that_they_take(recipe):
    cost = make_plan(recipe(steps=100, adapter_first=60)).cost
    assert cost and cost.first_s
    assert cost.total_s == pytest.approx(60 * cost.first_s + 40 * cost.step_s)


def test_what_will_be_left_out_is_said_before(recipe, first_line):
    first_line(lambda record: record["messages"][1].update(content="long " * 300))
    plan = make_plan(recipe(), measure=False)
    assert [source.too_long for source in plan.sources] == pytest.approx([1 / 6, 0])
    console = Console(record=True, width=160)
    show_plan(plan, console)
    assert "16.7% too long, 0.0% unusable" in console.export_text()


def test_a_blend_of_nothing_that_can_be_used_has_no_plan(recipe, corpus):
    with pytest.raises(ValueError, match="no conversation that was looked at can be used"):
        make_plan(recipe(tokens_per_batch=5), measure=False)
