"""Checkpoints: a Hugging Face folder, plus what is needed to go on as if nothing had happened.

Nothing is pickled: tensors are safetensors, the rest is JSON. A checkpoint is written beside its
place and renamed into it, so a killed save leaves the checkpoint before it intact.
"""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from voicetextblender import __version__
from voicetextblender.config import Recipe, dump_recipe
from voicetextblender.data.pack import Place
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.train.dist import ALONE, Ranks, gather, shard_like
from voicetextblender.train.optim import Ema

STATE = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of a parameter."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: with the seed, all that decides what comes next."""

    step: int = 0
    """Optimiser steps done."""
    places: Mapping[int, Place] = field(default_factory=dict)
    """Where each lane of the blend stands; none has begun if it is empty."""
    heard: Mapping[int, Place] = field(default_factory=dict)
    """Where each lane of the clips stands that are heard by CTC alone (train.ctc_tokens)."""

    @property
    def draws(self) -> int:
        """Draws of the blend used."""
        return sum(
            (place.draw - lane) // len(self.places) - len(place.waiting)
            for lane, place in self.places.items()
        )


def save_checkpoint(
    folder: Path,
    recipe: Recipe,
    model: SpeechLM,
    processor: SpeechLMProcessor,
    optimizer: torch.optim.Optimizer,
    position: Position,
    ema: Ema | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Write `folder/step-000200` atomically, then drop all but the newest `train.keep`.

    Every rank gives its shards; the first one writes, whole tensors, so that any number can resume.
    """
    place = folder / f"step-{position.step:06d}"
    state = gather(model.trained_state(), ranks)
    moments = gather(_optimizer_tensors(optimizer), ranks)
    averages = gather({} if ema is None else ema.state, ranks)
    if ranks.is_first:
        draft = folder / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_model(draft, recipe, model, processor, state)
        save_file(moments, draft / "optimizer.safetensors")
        if averages:
            save_file(averages, draft / "ema.safetensors")
        (draft / "position.json").write_text(json.dumps(asdict(position)))
        _sync(draft)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        for old in checkpoints(folder)[: -recipe.train.keep]:
            shutil.rmtree(old)
    ranks.wait()
    return place


def save_model(
    folder: Path,
    recipe: Recipe,
    model: SpeechLM,
    processor: SpeechLMProcessor,
    state: dict[str, Tensor],
) -> None:
    """Write what a user of the model needs: weights, processor, recipe and provenance."""
    model.save_pretrained(folder, state)
    processor.save_pretrained(folder)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps(provenance(), indent=1))


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "position.json").is_file())


def load_state(place: Path, optimizer: torch.optim.Optimizer, ema: Ema | None = None) -> Position:
    """Read what a checkpoint has beside the weights back in place, on any number of ranks.

    Raises ValueError if the optimiser's state does not fit.
    """
    stored = load_file(place / "optimizer.safetensors")
    for number, parameter in enumerate(_parameters(optimizer)):
        names = {key: f"{number}.{key}" for key in STATE if f"{number}.{key}" in stored}
        if not names:
            continue  # it has not begun to learn
        state = {key: stored.pop(name) for key, name in names.items()}
        if len(state) < len(STATE) or state["exp_avg"].shape != parameter.shape:
            raise ValueError(_unfit(place))
        # The fused AdamW wants `step` on the device too.
        optimizer.state[parameter] = {k: shard_like(parameter, v) for k, v in state.items()}
    if stored:
        raise ValueError(_unfit(place))
    if ema is not None and (place / "ema.safetensors").is_file():
        for name, tensor in load_file(place / "ema.safetensors").items():
            ema.state[name] = shard_like(ema.state[name], tensor)
    return _read_position(place / "position.json")


def provenance() -> dict[str, str]:
    """Return the versions and the machine that make a run what it is."""
    packages = ("torch", "transformers", "peft")
    return {name: version(name) for name in packages} | {
        "voicetextblender": __version__,  # a checkout that is not installed has no other
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _read_position(path: Path) -> Position:
    stored = json.loads(path.read_text())
    places, heard = (
        {int(lane): Place(at["draw"], tuple(at["waiting"])) for lane, at in stored[lanes].items()}
        for lanes in ("places", "heard")
    )
    return Position(stored["step"], places, heard)


def _unfit(place: Path) -> str:
    return (
        f"{place}: its optimiser state does not fit the recipe's trained parts; "
        f"resume with the recipe that made it, or start a new run"
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{key}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state[parameter].items()
    }


def _sync(folder: Path) -> None:
    """Force every file of the folder to disk before it is renamed into place."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
