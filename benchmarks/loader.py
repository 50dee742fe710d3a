"""The loader over a million conversations: first step, resumption, memory, and the plan alone.

    python benchmarks/loader.py [--lhotse]

Two sources of half a million lines each: chats of 20 to 2,000 tokens, and clips of 1 to 30 s that
are slices of one recording. Every measurement has a process of its own; its CPU seconds begin when
torch and transformers are imported. With --lhotse (pip install lhotse) its sampler plans the
same million lengths.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path

import numpy as np

RECORDS = 1_000_000
BUDGET = 2048
STEP = 100_000
WORDS = "the of and to in is that it was for on are as with his they at be this from have or "


def write_records(folder: Path) -> None:
    """Write the two sources."""
    from voicetextblender import audio

    random = np.random.default_rng(0)
    noise = random.uniform(-0.3, 0.3, 16_000 * 600).astype(np.float32)
    audio.save(folder / "long.wav", noise)
    seconds = np.clip(random.lognormal(1.8, 0.7, RECORDS // 2), 1, 30).round(2)
    words = np.clip(random.lognormal(4.5, 1, RECORDS // 2), 15, 1500).astype(int)
    text = WORDS * 80
    with (folder / "speech.jsonl").open("w") as file:
        for n, duration in enumerate(seconds.tolist()):
            clip = {"type": "audio", "audio": "long.wav", "start": n % 500, "duration": duration}
            question = [{"type": "text", "text": "Transcribe."}, clip]
            file.write(line(f"speech-{n}", question, text[: int(15 * duration)]))
    with (folder / "text.jsonl").open("w") as file:
        for n, num in enumerate(words.tolist()):
            file.write(line(f"text-{n}", "Go on.", text[: 4 * num]))


def line(name: str, question: object, answer: str) -> str:
    """Return a conversation as a line of JSON."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"id": name, "messages": turns}) + "\n"


def measure(folder: Path, what: str) -> None:
    """In a process of its own: build the loader, make a step, and print seconds and memory."""
    from voicetextblender.config import ModelConfig, Recipe
    from voicetextblender.data.pack import Place
    from voicetextblender.model.processing import SpeechLMProcessor
    from voicetextblender.train.feed import build_loader

    names = ("speech", "text")
    recipe = Recipe.model_validate(
        {
            "run": "none",
            "blend": [{"name": name, "path": str(folder / f"{name}.jsonl")} for name in names],
            "train": {"tokens_per_batch": BUDGET, "steps": 2 * STEP},
        }
    )
    processor = SpeechLMProcessor.from_parts(ModelConfig())
    began = time.process_time()
    loader = build_loader(recipe, processor)
    if what == "resume":
        place = Place(10 * STEP, tuple(range(10 * STEP - 40, 10 * STEP, 2)))
        steps = loader.steps({0: place})
    else:
        steps = loader.steps()
    next(steps)
    first_s = time.process_time() - began
    rest = time.process_time()
    positions = sum(len(b.input_ids) - b.padding for s in islice(steps, 10) for b in s.batches)
    rest_s = time.process_time() - rest
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{what:24} first step {first_s:5.2f} s   then {positions / rest_s:8.0f} positions/s   "
        f"{memory:.2f} GiB resident at most"
    )


def plan() -> None:
    """Draw and pack the lengths of a million conversations, which lie in memory."""
    from voicetextblender.data.blend import Blend
    from voicetextblender.data.pack import Place, pack

    lens, frames = lengths()
    # A range is as long as a sample, and begins with its number.
    samples: list = [range(n, n + length) for n, length in enumerate(lens)]
    blend = Blend([RECORDS], [1.0], 0)
    drawn = ((k, samples[blend[k].index]) for k in count())
    began, packed, rows = time.process_time(), 0, []
    for row, _ in pack(drawn, Place(0), 1, BUDGET):
        packed += len(row)
        rows.append(row)
        if packed >= RECORDS:
            break
    seconds = time.process_time() - began
    positions = sum(len(sample) for row in rows for sample in row)
    print(
        f"plan of a million         {seconds:.1f} s, {packed / seconds:,.0f} conversations/s\n"
        f"padding                   {1 - positions / len(rows) / BUDGET:.3%} of the positions, "
        f"{encoder_padding([[frames[s.start] for s in row] for row in rows[:2000]]):.1%} "
        f"of the frames of an encoder that pads"
    )
    began = time.process_time()
    Blend([RECORDS], [1.0], 0)[RECORDS // 2]
    print(f"resume in the middle      {time.process_time() - began:.3f} s")


def encoder_padding(rows: list[list[int]]) -> float:
    """Return the share of padding in the groups of clips that go through Parakeet together."""
    from voicetextblender.model.encoder import MOST_PADDING, alike

    real = total = 0
    for frames in rows:
        clips = [n for n in frames if n]
        real += sum(clips)
        total += sum(
            len(group) * max(clips[n] for n in group) for group in alike(tuple(clips), MOST_PADDING)
        )
    return 1 - real / total


def plan_of_lhotse() -> None:
    """The same lengths through Lhotse's sampler, as seconds of cuts: 12.5 positions are one."""
    from lhotse import CutSet, MonoCut  # type: ignore[import-not-found]
    from lhotse.dataset import DynamicBucketingSampler  # type: ignore[import-not-found]

    lens, _ = lengths()

    def cuts(num: int) -> CutSet:
        made = (MonoCut(f"c{n}", 0.0, lens[n] / 12.5, 0) for n in range(num))
        return CutSet.from_cuts(made) if num < RECORDS else CutSet(made)

    num = RECORDS // 10  # a tenth is enough to see its speed
    sampler = DynamicBucketingSampler(
        cuts(num), max_duration=BUDGET / 12.5, num_buckets=30, shuffle=True, seed=0
    )
    began = time.process_time()
    seen = sum(len(batch) for batch in sampler)
    seconds = time.process_time() - began
    print(f"Lhotse's sampler          {seen / seconds:,.0f} cuts/s")


def lengths() -> tuple[list[int], list[int]]:
    """Return positions and feature frames of conversations with lengths like real data's.

    Half have a clip around 6 s, half are text of 20 to 2,000 tokens.
    """
    random = np.random.default_rng(0)
    clip_s = np.clip(random.lognormal(1.8, 0.7, RECORDS // 2), 1, 30)
    text = np.clip(random.lognormal(4.8, 1, RECORDS // 2), 20, 2000)
    order = random.permutation(RECORDS)
    positions = np.concatenate([40 + 12.5 * clip_s, text]).astype(int)[order]
    frames = np.concatenate([100 * clip_s, np.zeros(RECORDS // 2)]).astype(int)[order]
    return positions.tolist(), frames.tolist()


def main() -> None:
    """Write the data, then measure each thing in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lhotse", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "WHAT"))
    asked = parser.parse_args()
    if asked.measure:
        measure(Path(asked.measure[0]), asked.measure[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_records(folder)
        for what in ("no index yet", "indexed before", "resume"):
            command = [sys.executable, __file__, "--measure", name, what]
            subprocess.run(command, check=True)
    plan()
    if asked.lhotse:
        plan_of_lhotse()


if __name__ == "__main__":
    main()
