import pytest
import torch
from safetensors.torch import load_file, save_file

from voicetextblender.data.pack import Place
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.train import state
from voicetextblender.train.optim import build_optimizer
from voicetextblender.train.state import (
    Position,
    checkpoints,
    load_state,
    provenance,
    save_checkpoint,
)

SEVENTH = Position(7, {0: Place(42, (30, 38)), 1: Place(45)})


def load_checkpoint(place, model, optimizer):
    model.load_trained(place)
    return load_state(place, optimizer)


@pytest.fixture
def trained(build, recipe):
    """A model whose optimiser has done a step."""

    def trained(seed=0, **settings):
        torch.manual_seed(seed)
        model = build(**settings)
        optimizer = build_optimizer(model, recipe().train)
        for parameters in model.trained_parts().values():
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        return model, optimizer

    return trained


def moments(optimizer):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [value for p in parameters for _, value in sorted(optimizer.state[p].items())]


def test_weights_optimiser_and_position_come_back_as_they_were(
    trained, recipe, processor, tmp_path
):
    model, optimizer = trained()
    place = save_checkpoint(tmp_path, recipe(), model, processor, optimizer, SEVENTH)
    assert place == tmp_path / "step-000007"
    other, other_optimizer = trained(seed=1)
    assert load_checkpoint(place, other, other_optimizer) == SEVENTH
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    for ours, theirs in zip(moments(optimizer), moments(other_optimizer), strict=True):
        assert torch.equal(ours, theirs)


def test_the_draws_that_were_used_are_those_of_all_lanes_that_wait_no_more():
    assert SEVENTH.draws == 21 - 2 + 22
    assert Position().draws == 0


def test_a_checkpoint_says_how_it_was_made_and_holds_no_pickle(
    trained, recipe, processor, tmp_path
):
    place = save_checkpoint(
        tmp_path, recipe(), *in_order(trained(), processor), Position(1, {0: Place(1)})
    )
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert {"recipe.yaml", "provenance.json", "config.json", "tokenizer.json"} <= files
    assert {path.suffix for path in place.rglob("*.*")} == {
        ".json",
        ".safetensors",
        ".yaml",
        ".jinja",
    }
    assert provenance()["torch"] == torch.__version__


def in_order(trained, processor):
    model, optimizer = trained
    return model, processor, optimizer


def test_only_the_newest_checkpoints_are_kept(trained, recipe, processor, tmp_path):
    parts = in_order(trained(), processor)
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, recipe(keep=2), *parts, Position(step, {0: Place(0)}))
    assert [place.name for place in checkpoints(tmp_path)] == ["step-000003", "step-000010"]


def test_a_save_that_fails_leaves_the_checkpoint_before_it_and_no_other(
    trained, recipe, processor, tmp_path, monkeypatch
):
    model, optimizer = trained()
    parts = model, processor, optimizer
    first = save_checkpoint(tmp_path, recipe(), *parts, Position(1, {0: Place(5)}))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.adapter.down.bias += 1

    def killed(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(state, "_sync", killed)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(tmp_path, recipe(), *parts, Position(2, {0: Place(9)}))
    assert checkpoints(tmp_path) == [first]
    assert load_checkpoint(first, model, optimizer) == Position(1, {0: Place(5)})
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor)
    save_checkpoint(tmp_path, recipe(), *parts, Position(2, {0: Place(9)}))
    assert sorted(
        path.name
        for path in tmp_path.iterdir()
        if path.is_dir() and "step" in path.name or path.name == ".draft"
    ) == ["step-000001", "step-000002"]


def test_a_step_that_is_saved_again_is_replaced(trained, recipe, processor, tmp_path):
    parts = in_order(trained(), processor)
    save_checkpoint(tmp_path, recipe(), *parts, Position(1, {0: Place(5)}))
    place = save_checkpoint(tmp_path, recipe(), *parts, Position(1, {0: Place(6)}))
    assert load_checkpoint(place, parts[0], parts[2]) == Position(1, {0: Place(6)})


def test_a_folder_that_is_not_whole_is_no_checkpoint(tmp_path):
    (tmp_path / "step-000001").mkdir()
    assert checkpoints(tmp_path) == []
    assert checkpoints(tmp_path / "none") == []


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("0.exp_avg"),
        lambda tensors: tensors.update({"0.exp_avg": torch.zeros(1)}),
    ],
    ids=["missing", "other shape"],
)
def test_an_optimiser_state_that_does_not_fit_is_refused(
    change, trained, recipe, processor, tmp_path
):
    model, optimizer = trained()
    place = save_checkpoint(
        tmp_path, recipe(), model, processor, optimizer, Position(1, {0: Place(1)})
    )
    tensors = load_file(place / "optimizer.safetensors")
    change(tensors)
    save_file(tensors, place / "optimizer.safetensors")
    with pytest.raises(ValueError, match="optimiser state does not fit .*resume with the recipe"):
        load_checkpoint(place, model, optimizer)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": {"width": 32, "heads": 2, "layers": 1, "kernel": 3}},
        {"lora": {"rank": 3}},
        {"train": {"encoder": "full"}},
    ],
    ids=["wider", "other rank", "more trained"],
)
def test_a_checkpoint_of_another_recipe_is_refused(settings, trained, recipe, processor, tmp_path):
    model, optimizer = trained()
    place = save_checkpoint(
        tmp_path, recipe(), model, processor, optimizer, Position(1, {0: Place(1)})
    )
    with pytest.raises(ValueError, match="does not fit the settings of the model"):
        load_checkpoint(place, *trained(**settings))


def test_a_checkpoint_is_a_model_that_can_be_used(trained, recipe, processor, tmp_path):
    parts = in_order(trained(), processor)
    place = save_checkpoint(tmp_path, recipe(), *parts, Position(1, {0: Place(1)}))
    assert isinstance(SpeechLM.from_pretrained(place), SpeechLM)
