"""Rows of one length against rows of any length, in training on a CPU.

    python benchmarks/rows.py [steps]

The same packed rows of real clips and chats (data/asterisk, data/text), padded to the token budget
and not, take turns through whole training steps of Whisper-base and SmolLM2-135M. oneDNN prepares a
matrix product anew for each new shape; a row that always has the same length has one.
"""

import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import torch
from peft.helpers import disable_input_dtype_casting

from voicetextblender.batch import Batch
from voicetextblender.config import Recipe
from voicetextblender.train.dist import ALONE
from voicetextblender.train.feed import build_loader
from voicetextblender.train.loop import begin, count, train_step
from voicetextblender.train.tally import Tally

BUDGET = 1024
SOURCES = ("speech", "text")


def without_padding(batch: Batch) -> Batch:
    """Return the row as it would be without its last positions."""
    num = len(batch.input_ids) - batch.padding
    names = ("input_ids", "labels", "position_ids", "source_ids")
    cut = {name: getattr(batch, name)[:num] for name in names}
    lens = batch.seq_lens[: len(batch.ids)]
    return replace(batch, **cut, seq_lens=lens, padding=0)


def main() -> None:
    """Print positions a CPU second, padding aside, for both ways and for a row that is repeated."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    recipe = Recipe.model_validate(
        {
            "run": "none",
            "blend": [
                {"name": "speech", "path": "data/asterisk/train.jsonl", "weight": 9},
                {"name": "text", "path": "data/text/chat.jsonl", "weight": 1},
            ],
            "train": {"tokens_per_batch": BUDGET, "spec_augment": None},
        }
    )
    run = begin(recipe, ALONE, resume=False)
    rows = build_loader(recipe, run.processor).steps()
    seconds: dict[str, list[float]] = {}
    useful: dict[str, list[int]] = {}
    made: list[float] = []
    first: Batch | None = None
    with ExitStack() as stack:
        stack.enter_context(disable_input_dtype_casting(run.model))
        for _ in range(steps):
            began = time.process_time()
            (batch,) = next(rows).batches
            made.append(time.process_time() - began)
            first = first or batch
            ways = {"padded": batch, "as they are": without_padding(batch), "repeated": first}
            for way, row in ways.items():
                began = time.process_time()
                train_step(run, [row], count(run, [row], False), Tally(SOURCES, ALONE.device))
                seconds.setdefault(way, []).append(time.process_time() - began)
                useful.setdefault(way, []).append(len(row.input_ids) - row.padding)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, rows of {BUDGET}")
    print(f"making a row: {1000 * statistics.median(made):.0f} ms")
    for way in seconds:
        speeds = [n / s for n, s in zip(useful[way], seconds[way], strict=True)][2:]
        print(f"{way:10} {statistics.median(speeds):6.0f} positions a CPU second")


if __name__ == "__main__":
    main()
