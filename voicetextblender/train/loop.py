"""Single-stage joint speech-text fine-tuning (arXiv 2410.17485): data, model, optimiser, loop."""

import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn

from voicetextblender.batch import Batch, with_silence
from voicetextblender.cache import cache_folder
from voicetextblender.config import Recipe, TrainConfig
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.prefix import CTC_DECODING
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.seeding import seeded
from voicetextblender.train.dist import (
    Ranks,
    clip_norm,
    first_alone,
    gather,
    join_ranks,
    share_gradients,
    spread,
)
from voicetextblender.train.feed import Feed
from voicetextblender.train.frames import FrameCache
from voicetextblender.train.log import open_log
from voicetextblender.train.objective import Objective
from voicetextblender.train.optim import Ema, build_optimizer, learning_parts, lr_scale, set_lr
from voicetextblender.train.retention import Kept, alarm, look, read_windows
from voicetextblender.train.state import (
    Position,
    checkpoints,
    load_state,
    save_checkpoint,
    save_model,
)
from voicetextblender.train.tally import Tally, flops_of, sizes_of

MAX_BAD_STEPS = 5
"""Steps in a row whose gradient may be not finite before the run is stopped."""

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that was asked to stop, and has saved."""


@dataclass(slots=True)
class Run:
    """All that lives as long as a run does."""

    recipe: Recipe
    ranks: Ranks
    processor: SpeechLMProcessor
    model: SpeechLM
    parts: dict[str, list[nn.Parameter]]
    """What is trained, by part."""
    sizes: dict[str, int]
    """Weights of each part, for the count of operations."""
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    objective: Objective
    windows: Sequence[Tensor]
    """The text on which retention is watched."""
    position: Position
    saved_at: int
    """Step of the newest checkpoint."""
    bad_steps: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """Conversations that could not be used, with the reason, as the log has them."""


def train(
    recipe: Recipe, *, resume: bool = True, report: Callable[[dict], None] | None = None
) -> Path:
    """Train as the recipe says and return the folder of the finished model.

    A run that was stopped goes on from its newest checkpoint, with the same batches and the same
    losses as if it had never stopped, unless `resume` is false, which drops its checkpoints. Each
    line of the log is also given to `report`. On several ranks every one of them calls this; the
    first writes. SIGTERM saves a checkpoint and ends the process. Raises ValueError for a recipe, a
    record or a part that will not do.
    """
    config, folder = recipe.train, Path(recipe.run)
    with ExitStack() as stack:
        ranks = stack.enter_context(join_ranks(config.parallel))
        run = begin(recipe, ranks, resume)
        stack.enter_context(disable_input_dtype_casting(run.model))
        is_terminated = stack.enter_context(termination())
        feed = Feed(recipe, run.processor, run.position, ranks)
        steps = iter(feed)
        log = None
        if ranks.is_first:
            log = stack.enter_context(open_log(folder, recipe, run.position.step))
        tally = Tally([source.name for source in recipe.blend], ranks.device)
        while run.position.step < config.steps:
            rows, after = next(steps)
            counts = count(run, rows, is_terminated())
            if counts is None:
                save(run)
                raise SystemExit(TERMINATED)
            norms = train_step(run, rows, counts, tally)
            run.position = after
            kept = watch(run)
            if kept is not None or is_due(run, config.log_every):
                line = log_line(run, tally, norms, kept, feed.left_out())
                if log is not None:
                    log.write(line)
                    if report is not None:
                        report(line)
                tally = Tally(tally.sources, ranks.device)
            if is_due(run, config.save_every):
                save(run)
            heed(run, kept)
        finish(run)
    return folder / "model"


def begin(recipe: Recipe, ranks: Ranks, resume: bool) -> Run:
    """Build the model and its optimiser, as they were if the run goes on from a checkpoint."""
    config, folder = recipe.train, Path(recipe.run)
    torch.manual_seed(config.seed)
    with first_alone(ranks):  # it unpacks parts that are packaged
        processor = SpeechLMProcessor.from_parts(recipe.model)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        model = SpeechLM.from_parts(recipe.model, processor.audio_token_id, dtype).train()
    model.config.ctc_decoding = CTC_DECODING if config.ctc_weight else 0.0
    torch.nn.Module.to(model, ranks.device)  # in place; transformers' own `to` has lost its types
    windows = () if config.retention is None else read_windows(config.retention, processor)
    if config.compile:
        if ranks.device.type == "cpu":
            raise ValueError("train.compile needs a GPU, and there is none; set it to false")
        model.compile_layers()
    if config.recompute:
        model.llm.gradient_checkpointing_enable({"use_reentrant": False})
    kept = checkpoints(folder / "checkpoints") if resume else []
    if kept:
        model.load_trained(kept[-1])
    elif ranks.is_first:  # else the old run's count as this one's newest
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if recipe.init is not None and not kept:
        model.load_trained(Path(recipe.init))
    encode = model.encode
    if config.frame_cache_gb:
        encode = FrameCache(cache_folder("frames"), model, config.frame_cache_gb).encode
    spread(model, ranks)
    optimizer = build_optimizer(model, config)
    ema = Ema(model.trained_state(), config.ema) if config.ema else None
    position = load_state(kept[-1], optimizer, ema) if kept else Position()
    weights = {source.name: source.loss_weight for source in recipe.blend}
    objective = Objective(model, config, weights, encode, ranks.is_sharded)
    return Run(
        recipe,
        ranks,
        processor,
        model,
        model.trained_parts(),
        sizes_of(model),
        optimizer,
        ema,
        objective,
        windows,
        position,
        saved_at=position.step,
    )


def count(run: Run, rows: Sequence[Batch], is_terminated: bool) -> Tensor | None:
    """Return what all rows of all ranks hold of each term, or None if any rank is to stop."""
    own = torch.stack([run.objective.counts(row) for row in rows]).sum(0)
    total = run.ranks.sum(torch.cat([own, own.new_tensor([is_terminated])]))
    return None if total[-1] else total[:-1]


def train_step(run: Run, rows: Sequence[Batch], counts: Tensor, tally: Tally) -> dict[str, float]:
    """Do one optimiser step and return each part's gradient norm; skip one that is not finite.

    Raises ValueError when that happens too often in a row.
    """
    config, ranks, step = run.recipe.train, run.ranks, run.position.step
    learning = learning_parts(step, config)
    freeze(run, learning)
    set_lr(run.optimizer, step, config)
    for number, row in enumerate(rows):
        # What is drawn at random follows from the seed, the step and the row alone, so that it is
        # the same in a resumed run, and on any number of ranks.
        row_seed = seeded(config.seed, "row", step, ranks.rank + number * ranks.num)
        torch.manual_seed(int(row_seed.integers(2**62)))
        tally.add_row(row, flops_of(run.model, run.sizes, row, step < config.adapter_first))
        if ranks.is_sharded and not row.clip_lens:
            row = with_silence(row)
        row = row.to(ranks.device)
        with autocast(ranks.device.type, config):
            loss = run.objective.loss(row, counts, step, tally)
        if loss.requires_grad:  # not where CTC is all that is asked, and there is nothing to hear
            loss.backward()
    parts = {part: own for part, own in run.parts.items() if part in learning}
    if ranks.is_sharded:
        for part in run.parts.keys() - parts.keys():
            for parameter in run.parts[part]:
                parameter.grad = None
    share_gradients([parameter for own in parts.values() for parameter in own], ranks)
    # Each part by itself: CTC's gradient on the adapter is large, and would drown the LoRA's.
    norms = {part: clip_norm(own, config.clip_norm) for part, own in parts.items()}
    if all(map(math.isfinite, norms.values())):
        run.optimizer.step()
        run.bad_steps = 0
        if run.ema is not None:
            run.ema.update(run.model.trained_state(), step)
    else:
        run.bad_steps += 1
    run.optimizer.zero_grad(set_to_none=True)
    if run.bad_steps == MAX_BAD_STEPS:
        ids = ", ".join(name for row in rows for name in row.ids)
        raise ValueError(
            f"step {step}: the gradient was not finite {run.bad_steps} times in a row; "
            f"lower train.lr, or look at conversations {ids}"
        )
    return norms


def freeze(run: Run, learning: set[str]) -> None:
    """Let no gradient be computed for parts that do not learn in this step."""
    if run.ranks.is_sharded:
        return  # fully_shard wants the same parameters every time; what they get is dropped
    for part, own in run.parts.items():
        for parameter in own:
            parameter.requires_grad_(part in learning)


def watch(run: Run) -> Kept | None:
    """Look at what the model keeps of its LLM, if it is time."""
    config = run.recipe.train.retention
    if config is None or not is_due(run, config.every):
        return None
    with autocast(run.ranks.device.type, run.recipe.train):
        return look(run.model, run.windows)


def heed(run: Run, kept: Kept | None) -> None:
    """Stop the run if it has forgotten too much and the recipe says so. Raises ValueError."""
    config = run.recipe.train.retention
    if config is None or kept is None or config.action == "warn":
        return
    if message := alarm(kept, config, run.position.step):
        save(run)
        raise ValueError(f"{message}; the run is saved, and goes on when it is started again")


def log_line(
    run: Run, tally: Tally, norms: dict[str, float], kept: Kept | None, left_out: dict[str, str]
) -> dict:
    """Return the line of the log that all ranks make together."""
    step, config = run.position.step, run.recipe.train
    run.position = gather_position(run)
    line = tally.line(step, run.position.draws, lr_scale(step - 1, config), norms, run.ranks)
    left_out = {
        name: why for of_rank in run.ranks.gather(left_out) for name, why in of_rank.items()
    }
    line["left_out"] = len(left_out)
    line["newly_left_out"] = {n: why for n, why in left_out.items() if n not in run.left_out}
    run.left_out |= left_out
    if kept is not None and config.retention is not None:
        line["retention"] = asdict(kept)
        line["warning"] = alarm(kept, config.retention, step) or ""
    return line


def is_due(run: Run, every: int) -> bool:
    """Return whether it is time for what is done `every` so many steps, and after the last one."""
    return run.position.step % every == 0 or run.position.step == run.recipe.train.steps


def gather_position(run: Run) -> Position:
    """Return where all lanes stand; a rank by itself knows only its own."""
    positions = run.ranks.gather(run.position)
    return Position(
        run.position.step,
        {lane: at for position in positions for lane, at in position.places.items()},
        {lane: at for position in positions for lane, at in position.heard.items()},
    )


def save(run: Run) -> None:
    """Write a checkpoint, unless there is one of this step."""
    if run.saved_at == run.position.step:
        return
    save_checkpoint(
        Path(run.recipe.run) / "checkpoints",
        run.recipe,
        run.model,
        run.processor,
        run.optimizer,
        gather_position(run),
        run.ema,
        run.ranks,
    )
    run.saved_at = run.position.step


def finish(run: Run) -> None:
    """Write the finished model."""
    state = run.model.trained_state() if run.ema is None else run.ema.state
    whole = gather(state, run.ranks)
    if run.ranks.is_first:
        save_model(Path(run.recipe.run) / "model", run.recipe, run.model, run.processor, whole)
    run.ranks.wait()


def autocast(device: str, config: TrainConfig) -> AbstractContextManager:
    """Return the context in which matrix products run in the recipe's precision."""
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16")


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Yield what says whether SIGTERM has come, which then no longer kills at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # Python lets only the main thread listen
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
