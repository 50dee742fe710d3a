"""Training speed: our loop beside HF Trainer with its speech models, and beside padded batches.

    python benchmarks/train.py                               every contender against ours
    python benchmarks/train.py --against voxtral grouped     some of them

Each contender has a process of its own; it and ours take turns, and ratios are of neighbours. One
workload for all: half clips with a short answer (median 6 s, up to 30 s), half text
(log-uniform from 20 tokens to --longest). All have random weights of one size: an LLM of
SmolLM2-135M's shape with --layers layers, LoRA of rank 32 on all of its linear layers, a frozen
encoder of the shape of Whisper-base (for Granite a Conformer of that size). Peers make features as
their own processors do; ids are given to everybody, so nobody tokenises. Useful tokens are the
conversations' text and 12.5 positions for each second of audio, the same number for all, divided by
CPU seconds of the whole process, features and optimiser included.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    LlamaConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Trainer,
    TrainingArguments,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.utils import logging

from voicetextblender.batch import IGNORE, Batch, Sample, collate
from voicetextblender.config import Recipe
from voicetextblender.data.pack import best_fit
from voicetextblender.model.features import log_mel
from voicetextblender.train.dist import ALONE
from voicetextblender.train.loop import Run, count, train_step
from voicetextblender.train.tally import Tally

VOCABULARY, AUDIO = 49152, 3  # SmolLM2's, and the id that holds audio embeddings' places
BATCH = 8  # HF Trainer's default
ROW = 2048
POOL = 32  # conversations that a row is chosen from
WIDTH = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONTENDERS = (
    *("dense", "grouped", "padded"),
    *("qwen2-audio", "voxtral", "granite-speech"),
    *("qwen2-audio bf16", "voxtral bf16", "granite-speech bf16"),
)
EXTRACTOR = WhisperFeatureExtractor(feature_size=80)


@dataclass(frozen=True)
class Item:
    """A conversation: maybe a clip, a prompt and an answer, as ids."""

    clip: np.ndarray | None
    prompt: list[int]
    answer: list[int]

    @property
    def useful(self) -> float:
        audio_s = 0 if self.clip is None else len(self.clip) / 16_000
        return 12.5 * audio_s + len(self.prompt) + len(self.answer)


def workload(num: int, longest: int) -> list[Item]:
    """Draw the conversations; the same for all contenders."""
    random = np.random.default_rng(0)
    items = []
    for n in range(num):
        words = random.integers(10, VOCABULARY, 4096).tolist()
        if n % 2:
            length = int(np.exp(random.uniform(np.log(20), np.log(longest))))
            items.append(Item(None, words[: length // 3], words[length // 3 : length]))
            continue
        seconds = float(np.clip(np.exp(random.normal(np.log(6), 0.7)), 1, 30))
        clip = (0.1 * random.standard_normal(int(16_000 * seconds))).astype(np.float32)
        items.append(Item(clip, words[:15], words[15 : 15 + int(3 * seconds)]))
    return items


def llm_config(layers: int) -> LlamaConfig:
    """SmolLM2-135M's shape."""
    return LlamaConfig(
        **WIDTH,
        num_hidden_layers=layers,
        num_key_value_heads=3,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        pad_token_id=0,
    )


def our_run(layers: int, precision: str = "bf16") -> Run:
    """Our model of random weights, and all that the loop has beside it."""
    from transformers import AutoModelForCausalLM, WhisperModel

    from voicetextblender.model.configuration import SpeechLMConfig
    from voicetextblender.model.modeling import SpeechLM
    from voicetextblender.train.objective import Objective
    from voicetextblender.train.optim import build_optimizer
    from voicetextblender.train.state import Position
    from voicetextblender.train.tally import sizes_of

    whisper = WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=1,
        decoder_attention_heads=8,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, part in {
            "llm": AutoModelForCausalLM.from_config(llm_config(layers)),
            "encoder": WhisperModel(whisper),
        }.items():
            part.save_pretrained(f"{folder}/{name}")
        recipe = Recipe.model_validate(
            {
                "run": folder,
                "model": {"llm": f"{folder}/llm", "encoder": f"{folder}/encoder"},
                "blend": [{"name": "all", "path": "none"}],
                "train": {"steps": 1000, "tokens_per_batch": ROW, "precision": precision},
            }
        )
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = SpeechLM.from_parts(recipe.model, AUDIO, dtype).train()
    assert isinstance(model.config, SpeechLMConfig)
    return Run(
        recipe=recipe,
        ranks=ALONE,
        processor=None,  # type: ignore[arg-type]  # samples are made here
        model=model,
        parts=model.trained_parts(),
        sizes=sizes_of(model),
        optimizer=build_optimizer(model, recipe.train),
        ema=None,
        objective=Objective(model, recipe.train, {"all": 1.0}, model.encode),
        windows=(),
        position=Position(step=200),  # flat start is over
        saved_at=0,
    )


def sample(item: Item, features: Tensor | None, length: int | None = None) -> Sample:
    """Make our sample of an item, or a padded one of `length` positions."""
    audio = 0 if features is None else -(-len(features) // 8)
    ids = [*item.prompt[:1], *[AUDIO] * audio, *item.prompt[1:], *item.answer]
    labels = [IGNORE] * (len(ids) - len(item.answer)) + item.answer
    labels = [*labels[1:], IGNORE]
    pad = 0 if length is None else length - len(ids)
    return Sample(
        "item",
        "all",
        "any",
        ids + [0] * pad,
        labels + [IGNORE] * pad,
        [] if features is None else [features],
        [] if features is None else [item.answer],
    )


def features_of(item: Item) -> Tensor | None:
    return None if item.clip is None else log_mel(torch.from_numpy(item.clip), EXTRACTOR)


def packed_rows(
    items: list[Item], features_of: Callable[[Item], Tensor | None] = features_of
) -> list[Batch]:
    """The items in rows of a token budget, as the loader packs them."""
    waiting = [sample(item, features_of(item)) for item in items]
    rows = []
    while waiting:
        first, *others = waiting[:POOL]
        chosen = best_fit(list(map(len, others)), ROW - len(first))
        rows.append(collate([first, *(others[n] for n in chosen)], 80))
        packed = {0, *(1 + n for n in chosen)}
        waiting = [one for n, one in enumerate(waiting) if n not in packed]
    return rows


def padded_rows(items: list[Item], is_grouped: bool) -> list[Batch]:
    """The items in batches of eight, padded to the longest of each; clips, too."""
    made = [(item, features_of(item)) for item in items]
    if is_grouped:
        made.sort(key=lambda pair: len(sample(*pair)))
    rows = []
    for at in range(0, len(made), BATCH):
        batch = made[at : at + BATCH]
        clips = [len(features) for _, features in batch if features is not None]
        longest = max(clips, default=0) if is_grouped else 3000
        padded = [
            (item, f if f is None else nn.functional.pad(f, (0, 0, 0, longest - len(f))))
            for item, f in batch
        ]
        length = max(len(sample(*pair)) for pair in padded)
        rows.append(collate([sample(*pair, length) for pair in padded], 80))
    return rows


def train_ours(run: Run, rows: list[Batch]) -> None:
    with disable_input_dtype_casting(run.model):
        for row in rows:
            train_step(run, [row], count(run, [row], False), Tally(["all"], ALONE.device))


def train_naively(run: Run, rows: list[Batch]) -> None:
    """The loop that one writes first: a loss over all positions, logits and all."""
    model = run.model
    for row in rows:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(
                row.input_ids[None],
                position_ids=row.position_ids[None],
                seq_lens=row.seq_lens,
                input_features=row.features if row.clip_lens else None,
                clip_lens=row.clip_lens,
                labels=torch.cat([row.labels.new_tensor([IGNORE]), row.labels[:-1]])[None],
            ).loss
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()


def peer(name: str, layers: int) -> tuple[nn.Module, Callable[[list[Item]], dict[str, Tensor]]]:
    """Return a transformers speech model with LoRA on its LLM, and what makes its batches."""
    llm = llm_config(layers)
    whisper = {"num_mel_bins": 80, "encoder_layers": 6, "encoder_attention_heads": 8}
    if name == "qwen2-audio":
        audio = {"model_type": "qwen2_audio_encoder", "d_model": 512, "encoder_ffn_dim": 2048}
        model = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(audio_config=audio | whisper, text_config=llm, audio_token_index=AUDIO)
        )
    elif name == "voxtral":
        audio = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
        audio |= {"num_attention_heads": 8, "num_mel_bins": 80}
        model = VoxtralForConditionalGeneration(
            VoxtralConfig(audio_config=audio, text_config=llm.to_dict(), audio_token_id=AUDIO)
        )
    else:
        encoder = {"input_dim": 160, "hidden_dim": 384, "num_layers": 7, "num_heads": 8}
        former = {"model_type": "blip_2_qformer", "hidden_size": 384, "num_hidden_layers": 2}
        former |= {"num_attention_heads": 8, "intermediate_size": 1536, "encoder_hidden_size": 384}
        model = GraniteSpeechForConditionalGeneration(
            GraniteSpeechConfig(
                text_config=llm,
                encoder_config=encoder | {"dim_head": 48},
                projector_config=former,
                audio_token_index=AUDIO,
                has_lora_adapter=False,
            )
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    projector = "projector" if name == "granite-speech" else "multi_modal_projector"
    targets = [
        n
        for n, module in model.named_modules()
        if isinstance(module, nn.Linear) and n.split(".")[-1] in LINEAR and "language_model" in n
    ]
    tuned = get_peft_model(model, LoraConfig(r=32, lora_alpha=32, target_modules=targets))
    for n, parameter in tuned.named_parameters():
        if projector in n and parameter.is_floating_point():
            parameter.requires_grad_(True)
    return tuned, lambda items: peer_batch(name, items)


def peer_batch(name: str, items: list[Item]) -> dict[str, Tensor]:
    """Pad a batch as the model's own processor does."""
    clips = [item.clip for item in items if item.clip is not None]
    batch: dict[str, Tensor] = {}
    sizes: list[int] = []
    if clips and name == "granite-speech":
        # Its extractor needs torchaudio, which has stopped; ours makes the same kind of features.
        longest = max(map(len, clips))
        mels = [
            log_mel(torch.from_numpy(np.pad(c, (0, longest - len(c)))), EXTRACTOR) for c in clips
        ]
        stacked = [mel[: len(mel) // 2 * 2].reshape(-1, 160) for mel in mels]
        sizes = [-(-((len(c) // 160 + 1) // 2) // 15) * 3 for c in clips]
        batch["input_features"] = torch.stack(stacked)
        batch["input_features_mask"] = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    elif clips:
        made = EXTRACTOR(
            clips,
            sampling_rate=16_000,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        batch["input_features"] = made["input_features"]
        sizes = [375] * len(clips)  # Voxtral: of the whole window
        if name == "qwen2-audio":
            batch["feature_attention_mask"] = made["attention_mask"]
            sizes = [(((n - 1) // 2 + 1) - 2) // 2 + 1 for n in made["attention_mask"].sum(1)]
    rows, left = [], iter(sizes)
    for item in items:
        audio = [AUDIO] * (0 if item.clip is None else int(next(left)))
        rows.append(([*item.prompt[:1], *audio, *item.prompt[1:], *item.answer], len(item.answer)))
    longest = max(len(ids) for ids, _ in rows)
    pads = [longest - len(ids) for ids, _ in rows]
    batch["input_ids"] = torch.tensor([i + [0] * p for (i, _), p in zip(rows, pads, strict=True)])
    batch["attention_mask"] = torch.tensor([[1] * (longest - p) + [0] * p for p in pads])
    batch["labels"] = torch.tensor(
        [
            [IGNORE] * (len(ids) - n) + ids[len(ids) - n :] + [IGNORE] * p
            for (ids, n), p in zip(rows, pads, strict=True)
        ]
    )
    return batch


def trainer(name: str, layers: int) -> Callable[[list[Item]], None]:
    """Return what trains a contender once over a workload."""
    kind, _, precision = name.partition(" ")
    if kind in ("ours", "dense"):
        run = our_run(layers)
        return lambda items: train_ours(run, packed_rows(items))
    if kind == "grouped":
        run = our_run(layers)
        return lambda items: train_ours(run, padded_rows(items, True))
    if kind == "padded":
        run = our_run(layers)
        return lambda items: train_naively(run, padded_rows(items, False))
    model, make = peer(kind, layers)

    def once(items: list[Item]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=-(-len(items) // BATCH),
                per_device_train_batch_size=BATCH,
                bf16=precision == "bf16",
                use_cpu=True,
                remove_unused_columns=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            Trainer(model, arguments, train_dataset=items, data_collator=make).train()  # type: ignore[arg-type]

    return once


def items_for(name: str, num: int, longest: int) -> list[Item]:
    """Return the workload; for `dense`, conversations of one length: nothing to pack or pad."""
    if name != "dense":
        return workload(num, longest)
    clip = (0.1 * np.random.default_rng(0).standard_normal(16_000 * 6)).astype(np.float32)
    same = Item(clip, list(range(10, 25)), list(range(30, 68)))
    return [same, Item(None, list(range(10, 48)), list(range(50, 140)))] * (num // 2)


def serve(once: Callable[[list[Item]], None], items: list[Item]) -> None:
    """Train once for every line that is read, and print what it took.

    The first steps, on a few conversations, do not count.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # trainers print what they log
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    once(items[:4])
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        cpu = time.process_time()
        once(items)
        speed = sum(item.useful for item in items) / (time.process_time() - cpu)
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"speed": speed, "peak_gb": peak_gb}), file=answers, flush=True)


def ask(process: subprocess.Popen) -> dict[str, float]:
    """Let a contender train once, and return its useful tokens a CPU second and its memory."""
    assert process.stdin is not None and process.stdout is not None
    print(file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen]:
    """Yield a contender in a process of its own, when it is ready. Raises ChildProcessError."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as words,
        subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=words) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline().strip() != "ready":
                raise EOFError
            yield process
        except (EOFError, BrokenPipeError, json.JSONDecodeError):
            process.kill()
            words.seek(0)
            raise ChildProcessError((words.read().splitlines() or ["it was killed"])[-1]) from None


def side_by_side(names: Sequence[str], command: list[str], rounds: int) -> None:
    """Print the table: the first contender and each other one take turns on the same workload."""
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; `{' '.join(command[1:])}`"
    )
    print(f"{'':24} useful tokens/CPU s   {names[0]} is (least-most)      peak memory")
    with started([*command, "--only", names[0]]) as first:
        ask(first)  # each new length costs something once
        for name in names[1:]:
            try:
                with started([*command, "--only", name]) as other:
                    turns = [(ask(first), ask(other)) for _ in range(rounds)]
            except ChildProcessError as error:
                print(f"{name:24} failed: {error}", flush=True)
                continue
            ratios = sorted(mine["speed"] / theirs["speed"] for mine, theirs in turns)
            speed = statistics.median(theirs["speed"] for _, theirs in turns)
            print(
                f"{name:24} {speed:12.0f} {statistics.median(ratios):15.2f} x "
                f"({ratios[0]:.2f}-{ratios[-1]:.2f}) {turns[-1][1]['peak_gb']:12.1f} GB",
                flush=True,
            )
        last = ask(first)
        print(f"{names[0]:24} {last['speed']:12.0f} {'':29} {last['peak_gb']:12.1f} GB")


def options(text: str) -> argparse.ArgumentParser:
    """Return the options that all tables of this kind have."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--only", help="one contender, driven by lines on its standard input")
    parser.add_argument("--conversations", type=int, default=24)
    parser.add_argument("--longest", type=int, default=1000, help="tokens of the longest text")
    parser.add_argument("--layers", type=int, default=10, help="of the LLM; SmolLM2-135M has 30")
    parser.add_argument("--rounds", type=int, default=2)
    return parser


def main() -> None:
    """Serve as one contender, or let all of them take turns."""
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--against", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    given = parser.parse_args()
    if given.only:
        once = trainer(given.only, given.layers)
        serve(once, items_for(given.only, given.conversations, given.longest))
        return
    command = [sys.executable, str(Path(__file__))]
    for key in ("conversations", "longest", "layers"):
        command += [f"--{key}", str(getattr(given, key))]
    side_by_side(("ours", *given.against), command, given.rounds)


if __name__ == "__main__":
    main()
