"""Actors' English with its script: `python recipes/data/amazon_queen.py QUEEN OUT`.

QUEEN is `queen.1c` of Debian's `flight-of-the-amazon-queen`, an adventure game of 1995: about
5,500 lines by some forty characters, each a clip beside its text. Its licence lets it be copied and
changed, not sold; clips stay here, and are not for passing on. OUT gets `clips.tar`,
`asr-train.jsonl` and, with characters that are not in it, `asr-test.jsonl`.
"""

import io
import re
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from voicetextblender.audio import load
from voicetextblender.chat import Audio, Conversation, assistant, user
from voicetextblender.data.importing import Conversations
from voicetextblender.seeding import seeded
from voicetextblender.text import transcribe_instruction

META = {
    "license": "Flight-of-the-Amazon-Queen-License",
    "source": "Debian flight-of-the-amazon-queen 1.0.0",
    "synthetic": False,
}
HEAD = 20  # bytes before the data of a dialogue
COMMAND = re.compile(r"\*[A-Z0-9]{2}")  # between the clips of a line: a gesture
Lines = Iterator[tuple[str, str, str]]  # file of the clip, who says it, what


def files(game: bytes) -> dict[str, bytes]:
    """Return every file of the archive: a count at byte 13, then name, place and size of each."""
    (count,) = struct.unpack_from(">H", game, 13)
    entries = (struct.unpack_from(">12sBII", game, 15 + 21 * n) for n in range(count))
    return {name.rstrip(b"\0").decode(): game[at : at + size] for name, _, at, size in entries}


def dialogue(name: str, data: bytes) -> Lines:
    """Yield the lines of a talk: Joe's come after the tree of choices, the other's after his."""
    levels, _, talk, num_joe, num_other = struct.unpack_from(">5h", data, HEAD)
    (other_at,) = struct.unpack_from(">h", data, HEAD + 22)
    speaker = re.sub(r"\d*$", "", name).lower()
    blocks = (("J", "joe", 32 + abs(levels) * 96, num_joe), ("P", speaker, other_at, num_other))
    for letter, who, place, count in blocks:
        place += HEAD
        for _ in range(count):
            if place + 5 > len(data):
                break
            number, length = struct.unpack_from(">HB", data, place + 2)
            said = data[place + 5 : place + 5 + length].decode("cp850")
            place += 5 + length
            place += (HEAD - place) % 4
            for part, text in enumerate(map(str.strip, COMMAND.split(said)), start=1):
                yield f"{talk:02d}{number:04X}{letter}{part}.SB", who, text


def cut_scene(name: str, data: bytes) -> Lines:
    """Yield the lines of a scene; who says them is not written down."""
    place, end = struct.unpack_from(">2H", data, HEAD + 8)
    place, lines = HEAD + place + 1, []
    while place < min(HEAD + end, len(data)):
        lines.append(data[place + 1 : place + 1 + data[place]].decode("cp850"))
        place += 1 + data[place]
        place += place % 2
    if not all(map(str.isprintable, lines)):  # some scenes have more in front of their lines
        return
    for number, said in enumerate(lines, start=1):
        parts = filter(str.strip, COMMAND.split(said))
        for part, text in enumerate(map(str.strip, parts), start=1):
            yield f"{name.ljust(5, '_')}{number:02d}{part}.SB", "cut scene", text


def script(archive: dict[str, bytes]) -> Lines:
    for file, data in sorted(archive.items()):
        name, _, kind = file.partition(".")
        if kind in ("DOG", "CUT"):
            yield from (dialogue if kind == "DOG" else cut_scene)(name, data)


def as_written(text: str) -> str | None:
    """Return the text without shouting in capitals; None for what is no English."""
    is_english = re.search(r"[a-z]{2}", text) and text.isascii()
    if not is_english or re.search(r"\b[B-DF-HJ-NP-TV-XZb-df-hj-np-tv-xz]{4,}\b", text):
        return None
    text = re.sub(r"\b[A-Z]{2,}\b", lambda word: word[0].lower(), text)
    return text[0].upper() + text[1:]


def main(game: Path, out: Path) -> None:
    archive = files(game.read_bytes())
    lines = {
        file: (who, text)
        for file, who, said in script(archive)
        if file in archive and (text := as_written(said))
    }
    speakers = sorted({who for who, _ in lines.values()} - {"joe", "cut scene"})
    test = set(seeded(0, "queen").choice(speakers, len(speakers) // 6, replace=False))
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "clips.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(lines):
            entry = tarfile.TarInfo(file.replace(".SB", ".mp3"))
            entry.size = len(archive[file])
            tar.addfile(entry, io.BytesIO(archive[file]))
    with Conversations(out) as conversations:
        for file, (who, text) in sorted(lines.items()):
            path = f"{out.absolute()}/clips.tar#{file.replace('.SB', '.mp3')}"
            try:
                load(path)
            except ValueError:
                conversations.drop("damaged")
                continue
            turns = (user(transcribe_instruction("en"), Audio(path, text=text)), assistant(text))
            spoken = Conversation(
                f"queen-{file[:-3].lower()}",
                turns,
                "asr",
                "en",
                {**META, "speaker": f"queen-{who}"},
            )
            split = "test" if who in test else "train"
            conversations.add_conversation(spoken, f"asr-{split}")
    hours = conversations.duration_s / 3600
    print(f"{conversations.kept} clips, {hours:.2f} h, {len(speakers) + 1} speakers, in {out}")
    print(f"left out: {dict(conversations.dropped)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
