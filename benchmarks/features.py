"""From a file to log-mel features: ours against librosa and Lhotse, by real time on one thread.

    python benchmarks/features.py            (pip install librosa lhotse for their rows)

The real clips of data/asterisk (Opus, 48 kHz) and the same clips as FLAC at 16 kHz. All ways take
turns; the best of some rounds counts. Lhotse reads with its own audio backend and torchaudio-like
log-mels of its own; librosa with librosa.load and librosa's melspectrogram.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from voicetextblender import audio
from voicetextblender.model.features import log_mel

ROUNDS = 3
EXTRACTOR = WhisperFeatureExtractor()


def ours(path: Path) -> object:
    """Read and transform as training does."""
    return log_mel(torch.from_numpy(audio.load(path)), EXTRACTOR)


def transformers_own(path: Path) -> object:
    """Read as training does; the extractor of transformers, unpadded."""
    return EXTRACTOR(
        audio.load(path),
        sampling_rate=16_000,
        padding="longest",
        truncation=False,
        return_tensors="pt",
    )


def librosas(path: Path) -> object:
    """What a librosa user writes."""
    import librosa  # type: ignore[import-not-found]

    samples, _ = librosa.load(path, sr=16_000)
    mels = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80
    )
    return np.log10(np.maximum(mels, 1e-10)).T


def lhotses(path: Path) -> object:
    """What a Lhotse user writes: a recording, resampled, and its filter banks."""
    from lhotse import Fbank, FbankConfig, Recording  # type: ignore[import-not-found]

    global _fbank
    if _fbank is None:
        _fbank = Fbank(FbankConfig(num_filters=80))
    recording = Recording.from_file(path)
    if recording.sampling_rate != 16_000:
        recording = recording.resample(16_000)
    return _fbank.extract(recording.load_audio(), 16_000)


_fbank = None


def main() -> None:
    """Print seconds of audio a second for each way and kind of file."""
    torch.set_num_threads(1)
    opus = sorted(Path("data/asterisk/clips").rglob("*.opus"))[:50]
    ways: list[Callable[[Path], object]] = [ours, transformers_own]
    for way, module in ((librosas, "librosa"), (lhotses, "lhotse")):
        try:
            __import__(module)
        except ImportError as error:
            print(f"no {module}: {error}", file=sys.stderr)
        else:
            ways.append(way)
    with tempfile.TemporaryDirectory() as name:
        flac = []
        for path in opus:
            flac.append(Path(name) / f"{path.parent.name}-{path.stem}.flac")
            audio.save(flac[-1], audio.load(path))
        length_s = sum(audio.probe_duration(path) for path in flac)
        print(f"{len(flac)} clips, {length_s:.0f} s; torch {torch.__version__}, one thread")
        for kind, paths in (("FLAC, 16 kHz", flac), ("Opus", opus)):
            best = dict.fromkeys(ways, float("inf"))
            for way in ways:
                way(paths[0])
            for _ in range(ROUNDS):
                for way in ways:
                    began = time.process_time()
                    for path in paths:
                        way(path)
                    best[way] = min(best[way], time.process_time() - began)
            for way in ways:
                print(f"{kind:14} {way.__name__:18} {length_s / best[way]:7.0f} x real time")


if __name__ == "__main__":
    main()
