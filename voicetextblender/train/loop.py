"""Single-stage joint speech-text fine-tuning (arXiv 2410.17485): data, model, optimiser, loop."""

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor

from voicetextblender.batch import IGNORE, Batch
from voicetextblender.config import Recipe, TrainConfig, dump_recipe
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.model.splice import audio_mask
from voicetextblender.train.feed import build_loader
from voicetextblender.train.loss import ctc_loss, kl_from, token_losses
from voicetextblender.train.optim import build_optimizer, lr_scale, set_lr
from voicetextblender.train.state import (
    Position,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_model,
)

MAX_BAD_STEPS = 5
"""Steps in a row whose gradient may be not finite before the run is stopped."""


@dataclass(slots=True)
class Tally:
    """Sums since the last line of the log."""

    loss: dict[str, float] = field(default_factory=dict)
    """Summed next-token loss of each source."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Supervised tokens of each source."""
    conversations: Counter[str] = field(default_factory=Counter)
    ctc: float = 0.0
    ctc_tokens: int = 0
    positions: int = 0
    padding: int = 0
    audio_s: float = 0.0

    def add(self, batch: Batch, losses: Tensor, supervised: Tensor) -> None:
        """Add a batch's (P,) token losses, which stand at its `supervised` (N,) positions."""
        source_ids = batch.source_ids[supervised]
        for number, source in enumerate(batch.sources):
            own = losses[source_ids == number]
            self.loss[source] = self.loss.get(source, 0.0) + own.sum().item()
            self.tokens[source] = self.tokens.get(source, 0) + len(own)
        self.conversations.update(batch.sources_of_conversations)
        self.positions += len(batch.input_ids) - batch.padding
        self.padding += batch.padding
        self.audio_s += sum(batch.clip_lens) / 100

    def line(self, position: Position, lr: float, norms: dict[str, float], s: float) -> dict:
        """Return the log line: means over supervised tokens, and speeds."""
        return {
            "step": position.step,
            "draw": position.draws,
            "loss": sum(self.loss.values()) / max(1, sum(self.tokens.values())),
            "loss_by_source": {s: self.loss[s] / max(1, self.tokens[s]) for s in self.loss},
            "tokens_by_source": dict(self.tokens),
            "conversations_by_source": dict(self.conversations),
            "ctc": self.ctc / max(1, self.ctc_tokens),
            "padding": self.padding / (self.positions + self.padding),
            "lr_scale": lr,
            "grad_norm": norms,
            "tokens_per_s": self.positions / s,
            "audio_s_per_s": self.audio_s / s,
            "seconds": s,
        }


def train(
    recipe: Recipe, *, resume: bool = True, report: Callable[[dict], None] | None = None
) -> Path:
    """Train as the recipe says and return the folder of the finished model.

    A run that was stopped goes on from its newest checkpoint, with the same batches and the same
    losses as if it had never stopped, unless `resume` is false, which drops its checkpoints. Each
    line of the log is also given to `report`. Raises ValueError for a recipe, a record or a part
    that will not do.
    """
    run = Path(recipe.run)
    config = recipe.train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    processor = SpeechLMProcessor.from_parts(recipe.model)
    loader = build_loader(recipe, processor)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    model = SpeechLM.from_parts(recipe.model, processor.audio_token_id, dtype).train()
    torch.nn.Module.to(model, device)  # in place; transformers' own `to` has lost its types
    optimizer = build_optimizer(model, config)
    position = Position()
    kept = checkpoints(run / "checkpoints")
    if kept and resume:
        position = load_checkpoint(kept[-1], model, optimizer)
    elif kept:
        shutil.rmtree(run / "checkpoints")  # else the old run's count as this one's newest
    began_at = position.step
    with ExitStack() as stack:
        log = stack.enter_context(open_log(run, recipe, position))
        stack.enter_context(disable_input_dtype_casting(model))
        tally, started, bad_steps = Tally(), time.perf_counter(), 0
        steps = loader.steps(position.places, ahead=device.type != "cpu")
        while position.step < config.steps:
            step = next(steps)
            scale = lr_scale(position.step, config)
            set_lr(optimizer, scale)
            # Dropout is drawn from (seed, step) too, so a resumed run draws the same.
            torch.manual_seed(config.seed * 1_000_003 + position.step)
            flat = max(0.0, 1 - position.step / max(1, config.flat_start))
            batches = [batch.to(device) for batch in step.batches]
            norms = train_step(model, optimizer, batches, config, tally, flat)
            bad_steps = 0 if all(map(math.isfinite, norms.values())) else bad_steps + 1
            if bad_steps == MAX_BAD_STEPS:
                ids = ", ".join(name for batch in batches for name in batch.ids)
                raise ValueError(
                    f"step {position.step}: the gradient was not finite {bad_steps} times in a "
                    f"row; lower train.lr, or look at conversations {ids}"
                )
            position = Position(position.step + 1, dict(step.places))
            if position.step % config.log_every == 0 or position.step == config.steps:
                now = time.perf_counter()
                line = tally.line(position, scale, norms, now - started)
                print(json.dumps(line), file=log, flush=True)
                if report is not None:
                    report(line)
                tally, started = Tally(), now
            if position.step % config.save_every == 0 and position.step < config.steps:
                save_checkpoint(run / "checkpoints", recipe, model, processor, optimizer, position)
        if position.step > began_at:
            save_checkpoint(run / "checkpoints", recipe, model, processor, optimizer, position)
    save_model(run / "model", recipe, model, processor)
    return run / "model"


def train_step(
    model: SpeechLM,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    config: TrainConfig,
    tally: Tally,
    flat: float = 0.0,
) -> dict[str, float]:
    """Do one optimiser step and return each part's gradient norm; skip one that is not finite."""
    supervised = [int((batch.labels != IGNORE).sum()) for batch in batches]
    for batch, own in zip(batches, supervised, strict=True):
        with autocast(batch.input_ids.device.type, config):
            loss = batch_loss(model, batch, config, tally, flat)
        (loss * (own / max(1, sum(supervised)))).backward()
    # Each part by itself: CTC's gradient on the adapter is large, and would drown the LoRA's.
    norms = {
        part: torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm).item()
        for part, parameters in model.trained_parts().items()
    }
    if all(map(math.isfinite, norms.values())):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norms


def batch_loss(
    model: SpeechLM, batch: Batch, config: TrainConfig, tally: Tally, flat: float
) -> Tensor:
    """Return the loss of a batch: the mean over supervised tokens, plus the weighted CTC.

    `flat` is the share of flat start in the CTC loss.
    """
    audio, audio_lens = model.table.new_zeros(0, model.table.shape[1]), ()
    if batch.clip_lens:
        audio, audio_lens = model.embed_audio(batch.features, batch.clip_lens)
    embeds = model.embed(batch.input_ids, audio)
    hidden = model.decode(embeds[None], batch.position_ids[None], batch.seq_lens)[0]
    supervised = batch.labels != IGNORE
    losses = token_losses(hidden[supervised], batch.labels[supervised], model.project)
    tally.add(batch, losses.detach(), supervised)
    loss = losses.sum() / max(1, len(losses))
    if config.kl_weight:
        loss = loss + config.kl_weight * stay_near(model, batch, hidden)
    if config.ctc_weight and batch.clip_lens:
        ctc, num_targets = ctc_loss(
            audio,
            audio_lens,
            batch.ctc_targets,
            batch.ctc_lens,
            model.table,
            model.config.audio_token_id,
            torch.randint(len(model.table), (config.ctc_negatives,), device=audio.device),
            model.ctc_scale,
            flat,
        )
        tally.ctc += ctc.item()
        tally.ctc_tokens += num_targets
        loss = loss + config.ctc_weight * ctc / max(1, num_targets)
    return loss


def stay_near(model: SpeechLM, batch: Batch, hidden: Tensor) -> Tensor:
    """Return how far the model has gone from its LLM on the batch's conversations without audio.

    `hidden` (N, E) are the model's own states; the LLM's are computed here with the voice off.
    """
    is_audio = audio_mask(batch.input_ids, model.config.audio_token_id)
    lens = list(batch.seq_lens)
    is_text = [not bool(part.any()) for part in is_audio.split(lens)]
    if batch.padding:
        is_text[-1] = False
    text_lens = tuple(n for n, typed in zip(lens, is_text, strict=True) if typed)
    if not text_lens:
        return hidden.sum() * 0.0
    kept = torch.tensor(is_text).repeat_interleave(torch.tensor(lens)).to(hidden.device)
    with torch.no_grad(), model.voice_off():
        embeds = model.llm.get_input_embeddings()(batch.input_ids[kept])
        before = model.decode(embeds[None], batch.position_ids[kept][None], text_lens)[0]
    return kl_from(before, hidden[kept], model.project)


def autocast(device: str, config: TrainConfig) -> AbstractContextManager:
    """Return the context in which matrix products run in the recipe's precision."""
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


def one_line(line: dict) -> str:
    """Return a log line in a few words."""
    losses = " ".join(f"{source} {loss:.2f}" for source, loss in line["loss_by_source"].items())
    return (
        f"step {line['step']} · loss {losses} · ctc {line['ctc']:.2f} · "
        f"{line['tokens_per_s']:.0f} tokens/s"
    )


def open_log(run: Path, recipe: Recipe, position: Position) -> TextIO:
    """Open the run's log, cut back to `position`: lines of steps that are done again go."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    path = run / "log.jsonl"
    kept = [line for line in read_log(run) if line["step"] <= position.step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return path.open("a")


def read_log(run: Path) -> list[dict]:
    """Return the lines of a run's log; a last line that a killed run left unfinished is dropped."""
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
