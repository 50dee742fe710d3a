"""The log of a run: JSON lines and TensorBoard always, Weights & Biases where it is asked for."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from voicetextblender.config import Recipe, dump_recipe


class Log:
    """Writes lines to all of a run's logs."""

    def __init__(self, file: TextIO, board: Any, wandb_run: Any | None) -> None:
        self.file = file
        self.board = board
        self.wandb_run = wandb_run

    def write(self, line: dict) -> None:
        """Add a line of the log."""
        print(json.dumps(line), file=self.file, flush=True)
        scalars = dict(_scalars(line))
        for name, value in scalars.items():
            self.board.add_scalar(name, value, line["step"])
        if self.wandb_run is not None:
            self.wandb_run.log(scalars, step=line["step"])


@contextmanager
def open_log(run: Path, recipe: Recipe, step: int) -> Iterator[Log]:
    """Open the run's logs, cut back to `step`: lines of steps that are done again go.

    Raises ValueError if the recipe wants W&B and it is not installed.
    """
    from tensorboardX import SummaryWriter

    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    path, draft = run / "log.jsonl", run / ".log.jsonl"
    kept = [line for line in read_log(run) if line["step"] <= step]
    draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(draft, path)  # a run that is killed here still has its log
    wandb_run = _open_wandb(recipe, run) if recipe.train.wandb else None
    board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1, flush_secs=10)
    try:
        with path.open("a") as file:
            yield Log(file, board, wandb_run)
    finally:
        board.close()
        if wandb_run is not None:
            wandb_run.finish()


def read_log(run: Path) -> list[dict]:
    """Return the lines of a run's log; a last line that a killed run left unfinished is dropped."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def one_line(line: dict) -> str:
    """Return a log line in a few words."""
    losses = "".join(f" {source} {loss:.2f}" for source, loss in line["loss_by_source"].items())
    words = [
        f"step {line['step']}",
        f"loss{losses}" if losses else "",
        f"ctc {line['ctc']:.2f}" if line["ctc"] else "",
        f"{line['tokens_per_s']:.0f} tokens/s",
        f"hears {line['audio_s_per_s']:.0f}x",
        f"{line['memory_gb']:.1f} GB",
        f"{line['left_out']} left out" if line.get("left_out") else "",
        line.get("warning", ""),
    ]
    return " · ".join(filter(None, words))


def _scalars(line: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a line by name, such as `loss_by_source/asr`."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield prefix + name, value


def _open_wandb(recipe: Recipe, run: Path) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise ValueError(
            f"train.wandb is '{recipe.train.wandb}', but Weights & Biases is not installed; "
            f"pip install 'voicetextblender[wandb]', or set train.wandb to null"
        ) from None
    name = "-".join(run.absolute().parts[-2:])
    return wandb.init(
        project=recipe.train.wandb,
        id=name,
        name=name,
        dir=str(run),
        config=recipe.model_dump(mode="json"),
        resume="allow",
    )
