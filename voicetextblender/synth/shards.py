"""Shards: the unit of work of the data factory, a tar of clips beside a JSONL of conversations.

A shard is made by one process, in one go, from its numbered items and the seed; it appears under
its name only when it is complete. So a run that is killed goes on with the shards that are missing,
and ends with the same bytes as one that never was.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voicetextblender.audio import SAMPLE_RATE
from voicetextblender.chat import Conversation, to_line


@dataclass(frozen=True, slots=True)
class Speech:
    """A clip that was made: its name in the shard and its samples."""

    name: str
    samples: np.ndarray
    """(S,) float32 in [-1, 1]."""
    rate: int
    """Samples per second."""


Make = Callable[[int], tuple[Conversation, list[Speech]]]
"""Makes item number N: a conversation whose clips are named `SHARD.tar#NAME`, and the clips."""


def shard_name(number: int) -> str:
    """Return the name, without suffix, of shard `number`."""
    return f"shard-{number:05d}"


def make_shards(
    out: Path, num_items: int, per_shard: int, make: Make, workers: int
) -> Iterator[tuple[int, int]]:
    """Make what is missing of `num_items` items under `out`, in `workers` processes.

    `make` must be picklable. Yields (items done, items in all) whenever a shard is done.
    """
    out.mkdir(parents=True, exist_ok=True)
    ranges = [
        range(first, min(first + per_shard, num_items)) for first in range(0, num_items, per_shard)
    ]
    missing = [n for n in range(len(ranges)) if not (out / f"{shard_name(n)}.jsonl").is_file()]
    done = num_items - sum(len(ranges[n]) for n in missing)
    yield done, num_items
    with ProcessPoolExecutor(workers) as pool:
        working = {pool.submit(_make_shard, out, n, ranges[n], make): n for n in missing}
        for finished in as_completed(working):
            finished.result()
            done += len(ranges[working[finished]])
            yield done, num_items


def _make_shard(out: Path, number: int, items: Sequence[int], make: Make) -> None:
    name = shard_name(number)
    draft = out / f".{name}-{os.getpid()}"
    lines: list[str] = []
    with tarfile.open(f"{draft}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for item in items:
            conversation, clips = make(item)
            for clip in clips:
                _add(tar, clip)
            lines.append(to_line(conversation) + "\n")
    Path(f"{draft}.jsonl").write_text("".join(lines), encoding="utf-8")
    # The JSONL comes last: where it is, its tar is complete.
    os.replace(f"{draft}.tar", out / f"{name}.tar")
    os.replace(f"{draft}.jsonl", out / f"{name}.jsonl")


def _add(tar: tarfile.TarFile, clip: Speech) -> None:
    """Add a clip as 16 kHz FLAC; nothing in the entry depends on the clock or the user."""
    samples = soxr.resample(clip.samples, clip.rate, SAMPLE_RATE)
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    entry = tarfile.TarInfo(clip.name)
    entry.size = file.getbuffer().nbytes  # not tell(): the header is written last
    file.seek(0)
    tar.addfile(entry, file)
