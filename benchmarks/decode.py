"""Decoding speed: ours, transformers' `generate`, and the bound of reading every weight once.

    python benchmarks/decode.py --threads 1
    python benchmarks/decode.py --threads 2 --vllm .venv-vllm/bin/python       (make vllm)
    python benchmarks/decode.py --tokens 8 --rounds 1 --rows 1 --dtypes bfloat16     to try it

All in one run, by turns, on one model without its audio side; of each the median, as a ratio to
`generate`, in a table for docs/results/serving.md. One thread is timed by the processor time that
it takes, which others on the machine change little; several threads by the clock.
"""

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from voicetextblender.config import ModelConfig
from voicetextblender.model.decode import Decoder, LeanDecoder, ModuleDecoder
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import resolve

PROMPT = 64


def clock() -> float:
    """Return seconds; see above."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def ours(model: SpeechLM, decoder: Decoder, rows: int, new: int) -> Callable[[], float]:
    """Return what decodes `new` tokens in each row and says how many a second."""
    ids = torch.randint(1000, 20_000, (rows * PROMPT,))
    embeds = model.embed(ids, model.table[:0])

    def run() -> float:
        decoder.cache.clear()
        logits = decoder.read(embeds, [0] * rows, [PROMPT] * rows)
        began = clock()
        for _ in range(new):
            logits = decoder.step(logits.max(-1).indices[:, None])[:, 0]
        return rows * new / (clock() - began)

    return run


def theirs(llm: str, dtype: torch.dtype, rows: int, new: int) -> Callable[[], float]:
    """Return the same for transformers; reading the prompt is timed apart and taken off."""
    model = AutoModelForCausalLM.from_pretrained(resolve(llm), dtype=dtype).eval()
    ids = torch.randint(1000, 20_000, (rows, PROMPT))
    mask = torch.ones_like(ids)

    def seconds(num: int) -> float:
        began = clock()
        model.generate(
            ids,
            attention_mask=mask,
            min_new_tokens=num,
            max_new_tokens=num,
            do_sample=False,
            pad_token_id=0,
        )
        return clock() - began

    return lambda: rows * new / (seconds(new + 1) - seconds(1))


def bound(model: SpeechLM, rows: int, new: int) -> Callable[[], float]:
    """Return the same for multiplying by every weight matrix once, and nothing else."""
    layers = [m for m in model.llm.modules() if isinstance(m, torch.nn.Linear)]
    weights: list[Tensor] = [m.weight for m in layers]
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]).to(w.dtype) for w in weights}

    def run() -> float:
        began = clock()
        for _ in range(new):
            for weight in weights:
                F.linear(inputs[weight.shape[1]], weight)
        return rows * new / (clock() - began)

    return run


@contextmanager
def vllm(python: str, llm: str, dtype: str, rows: int, new: int) -> Iterator[Callable[[], float]]:
    """Give the same for vLLM, which runs in an environment and a process of its own."""
    threads = torch.get_num_threads()
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    settings["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    numbers = map(str, (rows, PROMPT, new))
    child = subprocess.Popen(
        [python, str(Path(__file__).with_name("vllm_decode.py")), resolve(llm), dtype, *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )
    assert child.stdin and child.stdout
    ask, answer = child.stdin, child.stdout
    if answer.readline() != "\n":
        raise RuntimeError(f"vLLM did not start; see above (process ended with {child.wait()})")

    def run() -> float:
        ask.write("\n")
        ask.flush()
        return float(answer.readline())

    try:
        yield run
    finally:
        ask.close()
        child.wait()


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--vllm", metavar="PYTHON", help="Python of an environment with vLLM.")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = ModelConfig.model_validate({"llm": args.llm, "train": {"llm": "frozen"}})
    print(f"{args.llm}, {args.threads} thread(s), {PROMPT} + {args.tokens} tokens.\n")
    columns = ["precision, rows", "generate, tokens/s", "module", "lean", "int8"]
    columns += ["every weight once", *(["vLLM"] if args.vllm else [])]
    print(f"| {' | '.join(columns)} |")
    print(f"| {' | '.join('---' for _ in columns)} |", flush=True)
    for name in args.dtypes:
        dtype = getattr(torch, name)
        model = SpeechLM.from_parts(settings, 0, dtype).eval()
        for rows in args.rows:
            ways = {
                "generate": theirs(args.llm, dtype, rows, args.tokens),
                "module": ours(model, ModuleDecoder(model), rows, args.tokens),
                "lean": ours(model, LeanDecoder(model), rows, args.tokens),
                "int8": ours(model, LeanDecoder(model, "int8"), rows, args.tokens),
                "bound": bound(model, rows, args.tokens),
            }
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(args.rounds):
                for way, run in ways.items():
                    found[way].append(run())
            speeds = {way: statistics.median(values) for way, values in found.items()}
            if args.vllm:
                with vllm(args.vllm, args.llm, name, rows, args.tokens) as run:
                    # By turns with generate alone: a process beside all would take their memory.
                    pairs = [(ways["generate"](), run()) for _ in range(args.rounds)]
                ratio = statistics.median(own / other for other, own in pairs)
                speeds["vllm"] = ratio * speeds["generate"]
            base = speeds.pop("generate")
            ratios = [f"{speed / base:.2f} ×" for speed in speeds.values()]
            print(f"| {name}, {rows} | {base:.1f} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
