"""Training attention on a CPU: PyTorch's fused kernel against two matrix products.

    python benchmarks/attention.py

Forward and backward of one packed row in bf16 at SmolLM2-135M's shape (9 heads of 64 over 3), as in
training: each sequence attends to itself. The two ways take turns; medians of ten rounds.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from voicetextblender.model.attention import matmul_attention

WORKLOADS = {"13 short exchanges": [75] * 13, "a mix": [400, 300, 120, 80, 60]}
ROUNDS = 10


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend through PyTorch's own function."""
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend as the model does in training on a CPU."""
    return matmul_attention(query, key, value, is_causal=True)


def one_round(attend: Callable[..., Tensor], lens: list[int]) -> tuple[float, float]:
    """Return the seconds of a forward and of a backward pass."""
    qkv = [
        torch.randn(1, heads, sum(lens), 64, dtype=torch.bfloat16, requires_grad=True)
        for heads in (9, 3, 3)
    ]
    began = time.perf_counter()
    rows = zip(*(part.split(lens, 2) for part in qkv), strict=True)
    out = torch.cat([attend(*row) for row in rows], 2)
    between = time.perf_counter()
    out.backward(torch.ones_like(out))
    return between - began, time.perf_counter() - between


def main() -> None:
    """Print a table of medians in milliseconds."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ms a layer")
    for name, lens in WORKLOADS.items():
        times = {attend: [one_round(attend, lens)] for attend in (fused, by_products)}
        for _ in range(ROUNDS):
            for attend, seen in times.items():
                seen.append(one_round(attend, lens))
        for attend, seen in times.items():
            forward, backward = (
                1000 * statistics.median(part) for part in zip(*seen[1:], strict=True)
            )
            print(
                f"{name:20} {attend.__name__:12} forward {forward:6.2f}  backward {backward:6.2f}"
            )


if __name__ == "__main__":
    main()
