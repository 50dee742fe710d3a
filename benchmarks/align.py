"""How fast an adapter aligns with CTC alone: what each choice of the training recipe brings.

    python benchmarks/align.py runs/demo/spoken runs/demo/held-out [--steps 120] [--seeds 0 1 2]

The frozen encoder's frames are computed once; then an adapter is trained from scratch for each
variant and seed, without the language model's layers, and read by greedy CTC on held-out clips.
Prints a table of word error rates and of seconds; takes about 20 s a row and seed on two cores.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voicetextblender.config import AdapterConfig, ModelConfig
from voicetextblender.data.records import Records, load_clips
from voicetextblender.model.adapter import ConformerLayer, build_adapter, match_scale
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.seeding import seeded
from voicetextblender.train.loss import ctc_loss

CLIPS_PER_STEP = 14


@dataclass(frozen=True)
class Variant:
    """One way to train; the defaults are the project's."""

    name: str = "the recipe"
    adapter: AdapterConfig = AdapterConfig()
    zero_branches: bool = True
    negatives: int = 2048
    scaled: bool = True
    flat_steps: int = 80
    lr: float = 1e-3
    warmup: int = 20


RECIPE = Variant()
VARIANTS = (
    RECIPE,
    replace(RECIPE, name="without flat start", flat_steps=0),
    replace(RECIPE, name="without zeroed branches", zero_branches=False),
    replace(RECIPE, name="dropout 0.1", adapter=AdapterConfig(dropout=0.1)),
    replace(RECIPE, name="no negatives beyond the batch", negatives=0),
    replace(RECIPE, name="logits not scaled", scaled=False),
    replace(RECIPE, name="mlp, width 1024", adapter=AdapterConfig(kind="mlp", width=1024)),
    replace(RECIPE, name="stack 8", adapter=AdapterConfig(stack=8)),
)

Clip = tuple[Tensor, list[int]]
"""(T, D) frames and the token ids of what is said."""


def frames_of(folder: str, model: SpeechLM, processor: SpeechLMProcessor, most: int) -> list[Clip]:
    """Encode the clips of a folder's conversations."""
    records = Records(f"{folder}/*.jsonl")
    clips: list[Clip] = []
    for n in range(min(most, len(records))):
        conversation = records[n]
        sample = processor.encode(conversation, load_clips(conversation))
        features = sample.features[0].to(model.dtype)
        with torch.no_grad():
            frames, _ = model.encoder(features, (len(features),))
        clips.append((frames.float(), sample.ctc_targets[0] or []))
    return clips


def train(variant: Variant, model: SpeechLM, clips: Sequence[Clip], steps: int, seed: int):
    """Train an adapter and return it with the seconds that it took."""
    torch.manual_seed(seed)
    adapter = build_adapter(
        **variant.adapter.model_dump(),
        encoder_width=model.encoder.width,
        llm_width=model.table.shape[1],
    )
    match_scale(adapter, model.table)
    if not variant.zero_branches:
        for layer in (m for m in adapter.modules() if isinstance(m, ConformerLayer)):
            for part in (layer.feed_forward_in, layer.feed_forward_out):
                nn.init.kaiming_uniform_(part.out.weight, a=5**0.5)
            nn.init.kaiming_uniform_(layer.attention.out.weight, a=5**0.5)
            nn.init.kaiming_uniform_(layer.convolution.out.weight, a=5**0.5)
    optimizer = torch.optim.AdamW(adapter.parameters(), betas=(0.9, 0.98), weight_decay=1e-3)
    random = seeded("align", seed)
    began = time.perf_counter()
    for step in range(steps):
        chosen = [clips[n] for n in random.choice(len(clips), CLIPS_PER_STEP, replace=False)]
        for group in optimizer.param_groups:
            group["lr"] = variant.lr * min((step + 1) / variant.warmup, 1 - step / steps)
        with torch.autocast("cpu", torch.bfloat16):
            embeds, lens = adapter(
                torch.cat([f for f, _ in chosen]), tuple(len(f) for f, _ in chosen)
            )
            loss, num_targets = ctc_loss(
                embeds,
                lens,
                [torch.tensor(ids) for _, ids in chosen],
                model.table,
                model.config.audio_token_id,
                torch.randint(len(model.table), (variant.negatives,)),
                model.ctc_scale if variant.scaled else 1.0,
                max(0.0, 1 - step / variant.flat_steps) if variant.flat_steps else 0.0,
            )
        (loss / max(1, num_targets)).backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return adapter.eval(), time.perf_counter() - began


@torch.no_grad()
def word_error_rate(adapter, model: SpeechLM, clips: Sequence[Clip], tokenizer) -> float:
    """Read the clips by greedy CTC over the whole vocabulary."""
    blank = model.config.audio_token_id
    heard, said = [], []
    for frames, ids in clips:
        with torch.autocast("cpu", torch.bfloat16):
            best = F.linear(adapter(frames, (len(frames),))[0], model.table).argmax(-1)
        tokens = [t for t in torch.unique_consecutive(best).tolist() if t != blank]
        heard.append(tokenizer.decode(tokens).lower())
        said.append(tokenizer.decode(ids).lower())
    return float(jiwer.wer(said, heard))


def main() -> None:
    """Run every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("held_out")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    processor = SpeechLMProcessor.from_parts(ModelConfig())
    model = SpeechLM.from_parts(ModelConfig(), processor.audio_token_id).eval()
    clips = frames_of(options.train, model, processor, CLIPS_PER_STEP * options.steps)
    held_out = frames_of(options.held_out, model, processor, 60)
    print(f"{len(clips)} clips to train on, {len(held_out)} held out, {options.steps} steps")
    print(f"{'':32}{'WER of each seed, %':30}seconds a run")
    for variant in VARIANTS:
        rates, seconds = [], 0.0
        for seed in options.seeds:
            adapter, took = train(variant, model, clips, options.steps, seed)
            rates.append(100 * word_error_rate(adapter, model, held_out, processor.tokenizer))
            seconds += took / len(options.seeds)
        shown = " ".join(f"{rate:7.1f}" for rate in rates)
        print(f"{variant.name:32}{shown:30}{seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()
