import pytest

from voicetextblender.config import TrainConfig
from voicetextblender.train.optim import build_optimizer, lr_scale, set_lr


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
    config = TrainConfig.model_validate({"lr": {"adapter": 3.0, "lora": 2.0, "encoder": 1.0}})
    optimizer = build_optimizer(model, config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    set_lr(optimizer, 0.5)
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
