"""vLLM's part of benchmarks/decode.py, run by the Python that `make vllm` installs.

    .venv-vllm/bin/python benchmarks/vllm_decode.py LLM DTYPE ROWS PROMPT NEW

For each line of standard input it decodes NEW tokens in each of ROWS and writes tokens a second;
reading the prompt is timed apart and taken off.
"""

import sys
import time


def main() -> None:
    """Load the LLM, say so with an empty line, and measure whenever asked."""
    from vllm import LLM, SamplingParams  # pyright: ignore  # in an environment of its own

    llm, dtype, *numbers = sys.argv[1:]
    rows, prompt, new = map(int, numbers)
    engine = LLM(llm, dtype=dtype, max_model_len=512, enable_prefix_caching=False)
    asked = [{"prompt_token_ids": [1000 + 7 * n + i for i in range(prompt)]} for n in range(rows)]

    def seconds(num: int) -> float:
        how = SamplingParams(temperature=0, max_tokens=num, min_tokens=num, ignore_eos=True)
        began = time.perf_counter()
        engine.generate(asked, how, use_tqdm=False)
        return time.perf_counter() - began

    seconds(new)  # the first one chooses kernels
    print("", file=ANSWERS, flush=True)
    for _ in sys.stdin:
        print(rows * new / (seconds(new + 1) - seconds(1)), file=ANSWERS, flush=True)


if __name__ == "__main__":
    # vLLM logs to standard output: it gets standard error, and the answers a stream of their own.
    ANSWERS, sys.stdout = sys.stdout, sys.stderr
    main()
