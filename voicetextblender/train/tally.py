"""The tally: sums over the steps since the last line of the log, and the line that they make."""

import resource
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from voicetextblender.batch import Batch
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.train.dist import Ranks

PER_SOURCE = ("loss", "tokens", "conversations")
SUMS = (
    *("ctc", "ctc_tokens", "kl", "kl_tokens", "kl_twin", "kl_twin_tokens"),
    *("positions", "padding", "audio_s", "flops"),
)


class Tally:
    """Sums on the model's device, so that no step waits for them to be read."""

    def __init__(self, sources: Sequence[str], device: torch.device) -> None:
        self.sources = list(sources)
        self.by_source = torch.zeros(len(PER_SOURCE), len(sources), device=device)
        self.sums = {name: torch.zeros((), dtype=torch.float64) for name in SUMS}
        self.began_s = time.perf_counter()

    def add(self, **amounts: Tensor | float) -> None:
        """Add to sums by name."""
        for name, amount in amounts.items():
            self.sums[name] = self.sums[name] + amount

    def add_tokens(self, batch: Batch, losses: Tensor, supervised: Tensor) -> None:
        """Add a row's (P,) token losses, which stand at its `supervised` (N,) positions."""
        place = torch.tensor([self.sources.index(name) for name in batch.sources])
        source_ids = place.to(losses.device)[batch.source_ids[supervised]]
        self.by_source[0].index_add_(0, source_ids, losses)
        self.by_source[1].index_add_(0, source_ids, torch.ones_like(losses))

    def add_row(self, batch: Batch, flops: float) -> None:
        """Add what a row holds, and the operations that it takes."""
        drawn = Counter(batch.sources_of_conversations)
        counts = torch.tensor([float(drawn[name]) for name in self.sources])
        self.by_source[2] += counts.to(self.by_source.device, non_blocking=True)
        self.add(
            positions=len(batch.input_ids) - batch.padding,
            padding=batch.padding,
            audio_s=sum(batch.clip_lens) / 100,
            flops=flops,
        )

    def line(
        self, step: int, draws: int, lr_scale: float, norms: Mapping[str, float], ranks: Ranks
    ) -> dict:
        """Return the log line of all ranks: means over tokens, and speeds."""
        here = torch.stack([self.sums[name].cpu().double() for name in SUMS])
        loss, tokens, conversations = ranks.sum(self.by_source.double()).tolist()
        total = dict(zip(SUMS, ranks.sum(here).tolist(), strict=True))
        seconds = time.perf_counter() - self.began_s
        seen = [(n, name) for n, name in enumerate(self.sources) if tokens[n]]
        drawn = zip(self.sources, conversations, strict=True)
        rows = max(1, total["positions"] + total["padding"])
        return {
            "step": step,
            "draw": draws,
            "loss": sum(loss) / max(1, sum(tokens)),
            "loss_by_source": {name: loss[n] / tokens[n] for n, name in seen},
            "tokens_by_source": {name: round(tokens[n]) for n, name in seen},
            "conversations_by_source": {name: round(n) for name, n in drawn if n},
            "ctc": total["ctc"] / max(1, total["ctc_tokens"]),
            "kl": total["kl"] / max(1, total["kl_tokens"]),
            "kl_twin": total["kl_twin"] / max(1, total["kl_twin_tokens"]),
            "padding": total["padding"] / rows,
            "lr_scale": lr_scale,
            "grad_norm": dict(norms),
            "tokens_per_s": total["positions"] / seconds,
            "audio_s_per_s": total["audio_s"] / seconds,
            "mfu": total["flops"] / seconds / ranks.num / peak_flops(ranks.device),
            "memory_gb": memory_gb(ranks.device),
            "seconds": seconds,
        }


CLOCK = frozenset({"seconds", "tokens_per_s", "audio_s_per_s", "mfu", "memory_gb"})
"""Keys of a line that differ from run to run."""


def flops_of(model: SpeechLM, sizes: Mapping[str, int], batch: Batch, is_heard_only: bool) -> float:
    """Return what a row takes in training, recomputation and attention's products not counted.

    Two operations a weight and token forward, two for the gradient of what comes in, and two for
    the weight's own, if it is trained. `is_heard_only` if the row's tokens skip the LLM.
    """
    frames = sum(batch.clip_lens) / model.encoder.subsampling
    embeds = sum(model.num_embeddings(batch.clip_lens))
    trains_encoder = model.config.model.train.encoder != "frozen"
    flops = 2 * frames * sizes["encoder"] * (3 if trains_encoder else 1)
    flops += 6 * embeds * sizes["adapter"]
    if not is_heard_only:
        flops += len(batch.input_ids) * (4 * sizes["llm"] + 6 * sizes["lora"])
        flops += 4 * int((batch.labels >= 0).sum()) * model.table.numel()
    return flops


def sizes_of(model: SpeechLM) -> dict[str, int]:
    """Return the weights that each part multiplies with; embedding tables are looked up."""
    sizes = {"encoder": 0, "adapter": 0, "llm": 0, "lora": 0}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if parameter.ndim > 1 and "embed" not in name and "lm_head" not in name:
            sizes["lora" if part == "llm" and "lora_" in name else part] += parameter.numel()
    return sizes


@lru_cache(maxsize=1)
def peak_flops(device: torch.device) -> float:
    """Return what the device reaches in one large bf16 matrix product: the best of five."""
    n = 8192 if device.type == "cuda" else 2048
    one = torch.ones(n, n, dtype=torch.bfloat16, device=device)
    best_s = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        product = one @ one
        product[0, 0].item()  # waits for it
        best_s = min(best_s, time.perf_counter() - began)
    return 2 * n**3 / best_s


def memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
