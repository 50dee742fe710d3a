"""More actors' English, without its script: `python recipes/data/steel_sky.py SKY OUT`.

SKY is the folder of Debian's `beneath-a-steel-sky` that holds `sky.dnr` and `sky.dsk`, an adventure
game of 1994: about 3,800 spoken lines, 1.7 h, 8 bits at 11 kHz. Its licence lets it be given away
and changed, not sold. Whisper-base writes the words down, so they are marked `meta.pseudo`; a line
that it hears as more words than anybody can say in that time is left out. OUT gets `clips/` and
`asr-train.jsonl`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from coffee import transcripts

from voicetextblender.audio import save
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.text import transcribe_instruction

META = {
    "license": "Beneath-a-Steel-Sky-License",
    "source": "Debian beneath-a-steel-sky 0.0372",
    "synthetic": False,
    "speaker": "steel-sky",
    "pseudo": "whisper-base",
}
RATE = 11_025  # Hz
HEAD = 22  # bytes before the samples
FIRST_LINE = 50_000  # number of the first file that is speech
SHORTEST_S, MOST_CHARS_PER_S = 0.8, 25.0


def spoken_lines(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each line's number and its (S,) float32 samples."""
    index, disk = (folder / "sky.dnr").read_bytes(), (folder / "sky.dsk").read_bytes()
    for place in range(4, 4 + 8 * int.from_bytes(index[:4], "little"), 8):
        # Of 8 bytes: number (2), where it lies (3; in units of 16 if bit 23 is set), size (3).
        number, at, size = (
            int.from_bytes(index[place + a : place + b], "little")
            for a, b in ((0, 2), (2, 5), (5, 8))
        )
        at = (at & 0x7FFFFF) << 4 if at & 0x800000 else at
        if number >= FIRST_LINE and size >> 22 == 0:
            samples = np.frombuffer(disk[at + HEAD : at + (size & 0x3FFFFF)], dtype=np.uint8)
            if len(samples) >= SHORTEST_S * RATE:
                yield number, (samples.astype(np.float32) - 128) / 128


def main(folder: Path, out: Path) -> None:
    (out / "clips").mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    lengths_s: dict[str, float] = {}
    for number, samples in spoken_lines(folder):
        key = str(number)
        paths[key] = (out / f"clips/{key}.flac").absolute()
        lengths_s[key] = len(samples) / RATE
        save(paths[key], samples, RATE)
    with Conversations(out) as conversations:
        for key, text in sorted(transcripts(paths).items()):
            if not any(map(str.isalpha, text)):
                conversations.drop("no words")
                continue
            clip = Audio(str(paths[key]), text=text)
            turns = (user(transcribe_instruction("en"), clip), assistant(text))
            conversation = Conversation(f"steel-sky-{key}", turns, "asr", "en", META)
            if len(text) > MOST_CHARS_PER_S * lengths_s[key]:
                conversations.drop("more than can be said")
                continue
            conversations.add_conversation(conversation, "asr-train")
    hours = conversations.duration_s / 3600
    print(f"{conversations.kept} lines, {hours:.2f} h, in {out}; left out: {conversations.dropped}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
