"""A long recording: memory on the way, time, and word errors beside those of its clips alone.

    python benchmarks/recording.py --model models/nano --minutes 60
    python benchmarks/recording.py --minutes 2                                  to try it

Clips of read English are joined, again and again in another order, with faint noise between them,
into one FLAC; an engine then transcribes each clip alone, and the recording. Prints a table for
docs/results/serving.md.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from voicetextblender.audio import SAMPLE_RATE, load
from voicetextblender.data.records import Records
from voicetextblender.eval.metrics import error_rate, word_edits
from voicetextblender.eval.normalisers import normaliser
from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.serve.engine import Engine
from voicetextblender.serve.transcribe import transcribe

LEAST_GAP_S, MOST_GAP_S = 0.1, 4.0
NOISE = 3e-4  # RMS: -70 dB


def spoken(path: Path) -> list[tuple[Path, str]]:
    """Return the clips of an evaluation set, each with what is said in it."""
    records = Records(str(path))
    clips = [records[place].clips[0] for place in range(len(records))]
    return [(Path(clip.audio), clip.text or "") for clip in clips]


def drawn(number: int) -> Iterator[int]:
    """Yield which clip comes next, without end: all of them, in ever another order."""
    chance = random.Random(0)
    while True:
        yield from chance.sample(range(number), number)


def record(clips: list[tuple[Path, str]], minutes: float, path: Path) -> list[int]:
    """Write a recording of at least so many minutes; return which clips it has."""
    chance, said, seconds = np.random.default_rng(0), [], 0.0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for number in drawn(len(clips)):
            if seconds >= 60 * minutes:
                return said
            gap = chance.uniform(LEAST_GAP_S, MOST_GAP_S)
            noise = chance.standard_normal(int(gap * SAMPLE_RATE)) * NOISE
            samples = np.concatenate([load(clips[number][0]), noise.astype(np.float32)])
            file.write(samples)
            said.append(number)
            seconds += len(samples) / SAMPLE_RATE
    raise AssertionError("clips are drawn without end")


def memory_mb() -> float:
    """Return what this process holds in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def watch(minutes: float, steps: int = 12) -> Callable[[float], None]:
    """Return what prints a row of the table each time another part of the recording is done."""
    began, told = time.perf_counter(), 0

    def progress(share: float) -> None:
        nonlocal told
        if share * steps >= told + 1:
            told = int(share * steps)
            took = time.perf_counter() - began
            print(f"| {share * minutes:.0f} | {took:.0f} | {memory_mb():.0f} |", flush=True)

    return progress


def wer(references: list[str], hypotheses: list[str]) -> float:
    """Return the word error rate, as Whisper's normaliser compares words."""
    same = normaliser("whisper-english")
    pairs = [[same(text) for text in texts] for texts in (references, hypotheses)]
    return float(error_rate(word_edits(*pairs).sum(0)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    parser.add_argument("--clips", type=Path, default=Path("data/eval/read-english.jsonl"))
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    clips = spoken(args.clips)
    model, processor = (kind.from_pretrained(args.model) for kind in (SpeechLM, SpeechLMProcessor))
    engine = Engine(model, processor)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.flac"
        said = record(clips, args.minutes, path)
        alone = [transcribe(engine, clip).text for clip, _ in clips]
        print("| minutes of sound | seconds of work | MB |\n| --- | --- | --- |")
        print(f"| 0 | 0 | {memory_mb():.0f} |", flush=True)
        began = time.perf_counter()
        whole = transcribe(engine, path, progress=watch(soundfile.info(path).duration / 60))
        took, used_s = time.perf_counter() - began, time.process_time()
    engine.close()
    references = [text for _, text in clips]
    own = wer([references[n] for n in said], [alone[n] for n in said])
    joined = wer([" ".join(references[n] for n in said)], [whole.text])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\n{whole.duration_s / 60:.1f} minutes, {len(said)} clips, {len(whole.segments)} segments"
    )
    print(f"WER {joined:.1%}, of the clips alone {own:.1%} ({joined / own - 1:+.1%})")
    print(
        f"{whole.duration_s / took:.1f} x real time; peak {peak:.0f} MB; {used_s:.0f} CPU s in all"
    )


if __name__ == "__main__":
    main()
