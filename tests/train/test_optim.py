import pytest
import torch

from voicetextblender.config import TrainConfig
from voicetextblender.train.optim import (
    Ema,
    build_optimizer,
    learning_parts,
    lr_scale,
    set_lr,
)


def test_the_learning_rate_rises_in_a_line_then_falls_along_a_cosine():
    config = TrainConfig(steps=101, warmup=10, final_lr=0.1)
    scales = [lr_scale(step, config) for step in range(101)]
    assert scales[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert scales[10] == pytest.approx(1.0)
    assert scales[55] == pytest.approx(0.55)  # half way down
    assert scales[100] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(scales[10:], scales[11:], strict=False))


def test_without_warmup_it_starts_at_the_peak():
    assert lr_scale(0, TrainConfig(steps=5, warmup=0)) == 1.0
    assert lr_scale(0, TrainConfig(steps=1, warmup=0)) == 1.0


def test_beyond_the_last_step_it_stays():
    config = TrainConfig(steps=20, warmup=0, final_lr=0.1)
    assert lr_scale(50, config) == pytest.approx(0.1)


def test_each_part_has_a_learning_rate_of_its_own(build):
    model = build(train={"encoder": "full"})
    rates = {"adapter": 3.0, "lora": 2.0, "encoder": 1.0}
    config = TrainConfig.model_validate({"lr": rates, "warmup": 10})
    optimizer = build_optimizer(model, config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    set_lr(optimizer, 4, config)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for part, expected in {"adapter": 1.5, "lora": 1.0, "encoder": 0.5}.items():
        assert {rate[id(p)] for p in model.trained_parts()[part]} == {expected}


def test_matrices_decay_and_vectors_do_not(build):
    optimizer = build_optimizer(build(), TrainConfig(weight_decay=0.5))
    for group in optimizer.param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


@pytest.mark.parametrize("train", [{}, {"llm": "frozen"}, {"encoder": "lora"}, {"encoder": "full"}])
def test_everything_that_is_trained_is_optimised_once(build, train):
    model = build(train=train)
    groups = build_optimizer(model, TrainConfig()).param_groups
    optimised = [id(parameter) for group in groups for parameter in group["params"]]
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(optimised) == len(set(optimised)) and set(optimised) == trained


def test_a_part_learns_in_its_steps_alone():
    config = TrainConfig.model_validate(
        {"learn": {"lora": [3, None], "encoder_lora": [0, 2]}, "adapter_first": 4}
    )
    learn = [learning_parts(step, config) for step in range(6)]
    assert ["encoder_lora" in parts for parts in learn] == [True, True] + [False] * 4
    assert ["lora" in parts for parts in learn] == [False] * 4 + [True] * 2
    assert all({"adapter", "encoder"} <= parts for parts in learn)


def test_a_part_that_begins_late_has_the_whole_schedule_in_what_is_left(build):
    model = build(train={"encoder": "lora"})
    config = TrainConfig.model_validate(
        {"warmup": 10, "steps": 1000, "learn": {"encoder_lora": [500, None]}}
    )
    optimizer = build_optimizer(model, config)

    def rates(step):
        set_lr(optimizer, step, config)
        return {group["part"]: group["lr"] / group["peak"] for group in optimizer.param_groups}

    assert rates(500)["encoder_lora"] == pytest.approx(0.1)
    assert rates(510)["encoder_lora"] == pytest.approx(1.0)
    assert rates(510)["adapter"] == pytest.approx(0.5, abs=0.02)
    assert rates(999) == pytest.approx({part: config.final_lr for part in rates(999)})


def test_the_average_follows_the_weights_slowly_and_soon_forgets_the_first():
    weight = {"a": torch.zeros(2), "n": torch.tensor(0)}
    ema = Ema(weight, 0.9)
    history = []
    for step in range(200):
        weight["a"] += 1
        weight["n"] += 1
        ema.update(weight, step)
        history.append(ema.state["a"][0].item())
    assert history[0] == pytest.approx(0.9) and ema.state["n"] == 200
    assert history[-1] == pytest.approx(200 - 9, abs=0.1)  # it lags by 1 / (1 - decay) - 1
