"""Training speed on one GPU: the paper's 3B shape and a 0.6B one, weights drawn on the device.

    python benchmarks/gpu.py                  within 90 seconds on an H100, compiled if time is left
    python benchmarks/gpu.py --shapes 3b --seconds 240 --profile
    python benchmarks/gpu.py --shapes tiny --device cpu --tokens 256

Each step is the training loop's own, on a packed row that was never seen before: half clips with a
short answer (median 6 s, up to 30 s), half text (log-uniform from 20 to 2,000 tokens), CTC on what
is heard, and the optimiser. MFU is the operations that the log counts (no recomputation, no product
of attention with itself) as a share of what one large bf16 matrix product reaches on the device.
What fails, or finds no time, says so in its line, and the others go on.
"""

import argparse
import gc
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count as numbers
from itertools import islice
from typing import Any

import numpy as np
import torch
from peft.helpers import disable_input_dtype_casting
from transformers import GemmaConfig, ParakeetEncoderConfig, Qwen2Config, WhisperConfig

from voicetextblender.batch import IGNORE, Batch, Sample, collate
from voicetextblender.config import Recipe
from voicetextblender.data.pack import Place, pack
from voicetextblender.model.configuration import SpeechLMConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.train.dist import Ranks
from voicetextblender.train.loop import Run, count, train_step
from voicetextblender.train.objective import Objective
from voicetextblender.train.optim import build_optimizer
from voicetextblender.train.state import Position
from voicetextblender.train.tally import Tally, flops_of, memory_gb, peak_flops, sizes_of

AUDIO = 3  # the id that holds audio embeddings' places
WARM_UP = 4
"""Steps before the clock starts: kernels are chosen, memory is taken, the compiler runs."""
LEAST_S = 30
"""Seconds that a compiled shape is not begun without."""
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError

HEAD = (
    f"{'':16} {'row':>6} {'weights':>7} {'trained':>8} {'ms/step':>8} {'(range)':13} "
    f"{'positions/s':>11} {'audio s/s':>9} {'padding':>8} {'TFLOP/s':>8} {'MFU':>7} {'memory':>8}"
)

SHAPES: dict[str, dict[str, Any]] = {
    "3b": {
        "says": "Gemma-2B + FastConformer-0.6B, trained fully",
        "llm": lambda: GemmaConfig(
            vocab_size=256_000,
            hidden_size=2048,
            intermediate_size=16_384,
            num_hidden_layers=18,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=256,
        ),
        # Without layerdrop: what is skipped would count as work.
        "encoder": lambda: ParakeetEncoderConfig(num_mel_bins=128, layerdrop=0.0),
        "adapter": {"width": 1024, "layers": 2, "stack": 1},
        "train": {"encoder": "full"},
    },
    "0.6b": {
        "says": "Qwen2.5-0.5B + Whisper-small, frozen",
        "llm": lambda: Qwen2Config(
            vocab_size=151_936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        "encoder": lambda: WhisperConfig(
            d_model=768, encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072
        ),
        "adapter": {"width": 512, "layers": 2, "stack": 4},
        "train": {"encoder": "frozen"},
    },
    "tiny": {
        "says": "for the tests",
        "llm": lambda: GemmaConfig(
            vocab_size=512,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
        ),
        "encoder": lambda: ParakeetEncoderConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_mel_bins=16,
            subsampling_conv_channels=8,
            layerdrop=0.0,
        ),
        "adapter": {"width": 16, "heads": 2, "layers": 1, "stack": 1},
        "train": {"encoder": "full"},
    },
}


def build(shape: dict[str, Any], tokens: int, device: torch.device) -> Run:
    """Draw a model on the device, and make what the loop has beside it."""
    recipe = Recipe.model_validate(
        {
            "run": "none",
            "model": {"adapter": shape["adapter"], "train": shape["train"]},
            "blend": [{"name": "all", "path": "none"}],
            "train": {"steps": 2000, "tokens_per_batch": tokens},
        }
    )
    torch.manual_seed(0)
    llm, encoder = shape["llm"](), shape["encoder"]()
    llm.dtype = encoder.dtype = torch.bfloat16
    if isinstance(encoder, WhisperConfig):
        encoder.decoder_layers = 1  # it is built, and dropped
    with torch.device(device):
        model = SpeechLM(
            SpeechLMConfig(
                settings=recipe.model.model_dump(),
                text_config=llm,
                audio_config=encoder,
                audio_token_id=AUDIO,
            )
        ).train()
    return Run(
        recipe=recipe,
        ranks=Ranks(0, 1, device),
        processor=None,  # type: ignore[arg-type]  # samples are made here
        model=model,
        parts=model.trained_parts(),
        sizes=sizes_of(model),
        optimizer=build_optimizer(model, recipe.train),
        ema=None,
        objective=Objective(model, recipe.train, {"all": 1.0}, model.encode),
        windows=(),
        position=Position(step=1000),  # warm, and flat start is over
        saved_at=0,
    )


def rows(model: SpeechLM, budget: int) -> Iterator[Batch]:
    """Yield packed rows of `budget` positions, as the loader packs them."""
    random = np.random.default_rng(0)
    mels = model.config.audio_config.num_mel_bins

    def sample(number: int) -> Sample:
        words = random.integers(10, len(model.table), 2000).tolist()
        if number % 2:
            longest = min(2000, budget)
            length = int(np.exp(random.uniform(np.log(20), np.log(longest))))
            return item(words[: length // 3], words[length // 3 : length], [])
        longest_s = min(30.0, 0.7 * budget / 12.5)
        seconds = float(np.clip(np.exp(random.normal(np.log(6), 0.7)), 1, longest_s))
        return item(words[:15], words[15 : 15 + int(3 * seconds)], [int(100 * seconds)])

    def item(prompt: list[int], answer: list[int], clips: Sequence[int]) -> Sample:
        slots = [AUDIO] * sum(model.num_embeddings(tuple(clips)))
        ids = [*prompt[:1], *slots, *prompt[1:], *answer]
        labels = [*[IGNORE] * (len(ids) - len(answer) - 1), *answer, IGNORE]
        heard = [answer for _ in clips]
        features = [torch.randn(frames, mels) for frames in clips]
        return Sample("item", "all", "any", ids, labels, features, heard)

    samples = ((number, sample(number)) for number in numbers())
    for row, _ in pack(samples, Place(0), 1, budget):
        yield collate(row, mels, budget)


def measure(
    name: str, device: torch.device, tokens: int, steps: int, is_compiled: bool, is_profiled: bool
) -> str:
    """Train a shape and return its line of the table."""
    run = build(SHAPES[name], tokens, device)
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    trained = sum(parameter.numel() for own in run.parts.values() for parameter in own)
    if is_compiled:
        run.model.compile_layers()
    batches = list(islice(rows(run.model, tokens), WARM_UP + steps))
    tally = Tally(["all"], device)
    with disable_input_dtype_casting(run.model):

        def step(batch: Batch) -> float:
            began = time.perf_counter()
            train_step(run, [batch], count(run, [batch], False), tally)
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began

        for batch in batches[:WARM_UP]:
            step(batch)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = [step(batch) for batch in batches[WARM_UP:]]
        if is_profiled:
            profile(lambda: step(batches[-1]), device)
    timed = batches[WARM_UP:]
    took = sum(seconds)
    flops = sum(flops_of(run.model, run.sizes, batch, False) for batch in timed)
    positions = sum(len(batch.input_ids) - batch.padding for batch in timed)
    audio_s = sum(sum(batch.clip_lens) for batch in timed) / 100
    padding = 1 - positions / (tokens * steps)
    return (
        f"{tokens:6} {weights / 1e9:6.2f}B {trained / 1e6:7.0f}M {1000 * took / steps:8.0f} "
        f"{f'({1000 * min(seconds):.0f}-{1000 * max(seconds):.0f})':13} {positions / took:11.0f} "
        f"{audio_s / took:9.1f} {100 * padding:7.2f}% {flops / took / 1e12:8.1f} "
        f"{100 * flops / took / peak_flops(device):6.1f}% {memory_gb(device):5.1f} GB"
    )


def profile(step: Any, device: torch.device) -> None:
    """Print what a step's time goes to."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60))


class OutOfTime(Exception):
    """The time that all shapes have together is over."""


@contextmanager
def until(end_s: float) -> Iterator[None]:
    """Raise OutOfTime in the block when the clock reaches `end_s`."""

    def ring(*_: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(1e-6, end_s - time.perf_counter()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def attempt(
    name: str, device: torch.device, given: argparse.Namespace, is_compiled: bool, end_s: float
) -> str:
    """Return a shape's line, or what went wrong; rows are halved until they fit in memory."""
    left_s, tokens = end_s - time.perf_counter(), given.tokens
    if left_s < (LEAST_S if is_compiled else 0):
        return f"not begun: {max(0, left_s):.0f} s left"
    while True:
        try:
            with until(end_s):
                return measure(name, device, tokens, given.steps, is_compiled, given.profile)
        except OUT_OF_MEMORY:
            tokens //= 2
            if tokens < 512:
                return "out of memory"
        except OutOfTime:
            return "out of time"
        except Exception as error:  # the others are still to be measured
            return f"failed: {type(error).__name__}: {str(error).strip()[:200]!r}"
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each shape, compiled and not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["3b", "0.6b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=8192, help="positions of a row")
    parser.add_argument("--steps", type=int, default=8, help="that are timed")
    parser.add_argument("--seconds", type=float, default=80, help="for all of it")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args(words)
    device, end_s = torch.device(given.device), time.perf_counter() + given.seconds
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{on}, torch {torch.__version__}; one large bf16 product: ", end="")
    print(f"{peak_flops(device) / 1e12:.1f} TFLOP/s\n{HEAD}", flush=True)
    is_plain = given.no_compile or device.type == "cpu"
    for is_compiled in (False,) if is_plain else (False, True):
        for name in given.shapes:
            line = attempt(name, device, given, is_compiled, end_s)
            title = f"{name}, compiled" if is_compiled else name
            print(f"{title:16} {line}", flush=True)


if __name__ == "__main__":
    main()
