"""Carry a run to a machine that reaches nothing: `python recipes/carry.py OUT PIECE_MB RECIPE…`.

OUT gets `piece-00`, `piece-01` and so on, at most PIECE_MB million bytes each: a tar, cut up, that
is unpacked over a checkout. It holds the recipes' data, every clip once, as Opus of 16 kbit/s; the
encoder alone of Whisper-base, as a cached part; and what lies in OUT/first and OUT/last.
What the blends name and is not there yet is to be made on the other machine.
"""

import glob
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

from safetensors.torch import load_file, save

from voicetextblender.audio import encode_opus, load
from voicetextblender.chat import Audio, Conversation, to_line
from voicetextblender.config import load_recipe
from voicetextblender.data.records import Records
from voicetextblender.model.parts import resolve
from voicetextblender.progress import progress_bar

BITS_PER_S = 16_000


class Carried:
    """The tar that grows: files of conversations beside tars of their clips."""

    def __init__(self, tar: tarfile.TarFile, kept: Path) -> None:
        self.tar = tar
        self.kept = kept
        kept.mkdir(parents=True, exist_ok=True)
        self.place: dict[tuple[str, float, float | None], Audio] = {}
        """Where each clip lies, its path from the checkout's root."""

    def add(self, path: Path) -> None:
        """Add a JSONL of conversations, and those of its clips that are not in the tar yet."""
        records, clips = Records(str(path)), io.BytesIO()
        clip_file = path.with_suffix(".clips.tar")
        lines = []
        with tarfile.open(fileobj=clips, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(len(records)):
                conversation = records[number]
                for clip in conversation.clips:
                    key = (clip.audio, clip.start, clip.duration)
                    if key not in self.place:
                        member = f"{len(self.place):07d}.opus"
                        _add(tar, member, _opus(clip, self.kept))
                        self.place[key] = Audio(f"{clip_file}#{member}")
                lines.append(to_line(self._moved(conversation, path)) + "\n")
        if clips.getbuffer().nbytes > tarfile.RECORDSIZE:  # an empty tar has one record
            _add(self.tar, str(clip_file), clips.getvalue())
        _add(self.tar, str(path), "".join(lines).encode())

    def _moved(self, conversation: Conversation, path: Path) -> Conversation:
        def moved(clip: Audio) -> Audio:
            place = self.place[clip.audio, clip.start, clip.duration]
            audio = os.path.relpath(place.audio, path.parent)
            return Audio(audio, duration=clip.duration, text=clip.text)

        return conversation.with_clips(map(moved, conversation.clips))


def main(out: Path, piece_bytes: int, recipes: list[Path]) -> None:
    patterns = [s.path for recipe in recipes for s in load_recipe(recipe).blend]
    here = os.getcwd()
    found = [sorted(glob.glob(os.path.relpath(pattern, here))) for pattern in patterns]
    paths = [Path(path) for path in dict.fromkeys(path for of in found for path in of)]
    whole = out / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        _add_folder(tar, out / "first")
        carried = Carried(tar, out / "opus")
        with progress_bar("packing") as advance:
            for number, path in enumerate(paths, start=1):
                carried.add(path)
                advance(number / len(paths))
        encoder = resolve("whisper-base")
        for file in sorted(encoder.iterdir()):
            data = file.read_bytes()
            if file.name == "model.safetensors":
                weights = load_file(file)
                data = save({n: t for n, t in weights.items() if n.startswith("model.encoder.")})
            _add(tar, f"runs/cache/parts/{encoder.name}/{file.name}", data)
        _add_folder(tar, out / "last")
    data = whole.read_bytes()
    whole.unlink()
    for number, at in enumerate(range(0, len(data), piece_bytes)):
        (out / f"piece-{number:02d}").mkdir(exist_ok=True)
        (out / f"piece-{number:02d}" / "part").write_bytes(data[at : at + piece_bytes])
    print(
        f"{len(carried.place)} clips, {len(data) / 1e6:.0f} MB in pieces of {piece_bytes / 1e6:.0f}"
    )


def _opus(clip: Audio, kept: Path) -> bytes:
    """Return a clip in few bytes; packing again finds it in `kept`."""
    told = f"{os.path.realpath(clip.audio.partition('#')[0])} {clip}"
    path = kept / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.opus"
    if not path.is_file():
        samples = load(clip.audio, clip.start, clip.duration)
        path.write_bytes(encode_opus(samples, bits_per_s=BITS_PER_S))
    return path.read_bytes()


def _add_folder(tar: tarfile.TarFile, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            tar.add(path, str(path.relative_to(folder)))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(float(sys.argv[2]) * 1e6), list(map(Path, sys.argv[3:])))
