"""What each part of the engine brings: a training step with all of them, and with one left out.

    python benchmarks/ladder.py

The workload and the model of benchmarks/train.py; all variants train the same conversations, turn
by turn in one process. CPU seconds, as multiples of those of the whole engine; the frame cache is
the one thing that is added to it instead.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from train import (
    BATCH,
    Item,
    features_of,
    our_run,
    packed_rows,
    sample,
    train_naively,
    train_ours,
    workload,
)

from voicetextblender.batch import Batch, collate
from voicetextblender.model import attention
from voicetextblender.train.frames import FrameCache
from voicetextblender.train.loop import Run

WINDOW = 3000  # feature frames of 30 s


def in_whole_windows(item: Item) -> Tensor | None:
    """Pad a clip to 30 s, as Whisper's own processor does."""
    features = features_of(item)
    return None if features is None else F.pad(features, (0, 0, 0, WINDOW - len(features)))


def unpacked(items: list[Item]) -> list[Batch]:
    """Batches of eight, each padded to its longest conversation; clips at their true length."""
    made = [(item, features_of(item)) for item in items]
    batches = [made[at : at + BATCH] for at in range(0, len(made), BATCH)]
    lengths = [max(len(sample(*pair)) for pair in batch) for batch in batches]
    return [
        collate([sample(*pair, length) for pair in batch], 80)
        for batch, length in zip(batches, lengths, strict=True)
    ]


def scored_everywhere(rows: list[Batch]) -> list[Batch]:
    """Score every position, so that the LLM's head runs on all of them."""
    return [replace(row, labels=row.input_ids) for row in rows]


@contextmanager
def gradients_for_all(run: Run):
    """Let gradients be computed for what is frozen, too."""
    frozen = [p for p in run.model.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    yield
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None


@contextmanager
def cached(run: Run, folder: str):
    """Keep the frames of the frozen encoder on disk."""
    objective = run.objective
    run.objective = replace(objective, encode=FrameCache(Path(folder), run.model, 1).encode)
    yield
    run.objective = objective


@contextmanager
def fused_attention():
    """Let PyTorch's own attention be used in training on a CPU, too."""
    limit, attention.MATMUL_LIMIT = attention.MATMUL_LIMIT, 0
    yield
    attention.MATMUL_LIMIT = limit


def variants(run: Run, exact: Run, folder: str) -> dict[str, Callable[[list[Item]], None]]:
    """Return what trains once over a workload, by name."""

    def with_all_gradients(items: list[Item]) -> None:
        with gradients_for_all(run):
            train_ours(run, packed_rows(items))

    def with_cache(items: list[Item]) -> None:
        with cached(run, folder):
            train_ours(run, packed_rows(items))

    def with_fused_attention(items: list[Item]) -> None:
        with fused_attention():
            train_ours(run, packed_rows(items))

    return {
        "the whole engine": lambda items: train_ours(run, packed_rows(items)),
        "clips padded to 30 s": lambda items: train_ours(run, packed_rows(items, in_whole_windows)),
        "rows padded, not packed": lambda items: train_ours(run, unpacked(items)),
        "head on every position": lambda items: train_ours(
            run, scored_everywhere(packed_rows(items))
        ),
        "head on all, logits kept": lambda items: train_naively(run, packed_rows(items)),
        "float32": lambda items: train_ours(exact, packed_rows(items)),
        "gradients for what is frozen": with_all_gradients,
        "PyTorch's fused attention": with_fused_attention,
        "frame cache added": with_cache,
    }


def main() -> None:
    """Print CPU seconds of each variant as a multiple of the whole engine's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=24)
    parser.add_argument("--longest", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    items = workload(given.conversations, given.longest)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = variants(our_run(given.layers), our_run(given.layers, "fp32"), folder)
        for turn in range(given.rounds + 1):
            for name, once in made.items():
                began = time.process_time()
                once(items)
                if turn:  # the first one chooses kernels, and fills the cache
                    seconds.setdefault(name, []).append(time.process_time() - began)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; CPU s, multiples of")
    whole = seconds["the whole engine"]
    for name, own in seconds.items():
        ratios = sorted(mine / theirs for mine, theirs in zip(own, whole, strict=True))
        middle = statistics.median(ratios)
        print(
            f"{name:30} {statistics.median(own):6.1f} s {middle:6.2f} x "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
