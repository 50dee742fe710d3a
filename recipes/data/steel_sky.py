"""Actors' English, pseudo-labelled: `python recipes/data/steel_sky.py GAME OUT`.

GAME is the folder of Debian's `beneath-a-steel-sky` with `sky.dnr` and `sky.dsk`, an adventure game
of 1994: some 3,500 lines, 11 kHz. Which text belongs to which clip is not written down, so
`heard.py` labels them. The game may be given away and changed, not sold; clips stay here. OUT gets
`clips.tar` and `asr-train.jsonl`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from heard import heard_lines, joined, speech

META = {
    "license": "Beneath-a-Steel-Sky-License",
    "source": "Debian beneath-a-steel-sky 0.0372",
}
HEAD = 22  # bytes before the data of a file
SPEECH = range(50_000, 59_400)  # numbers of files; what follows is music and noise
PACKED = b"RNC\x01"


def lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the samples, unsigned bytes, of each line."""
    index, disk = ((folder / f"sky.{kind}").read_bytes() for kind in ("dnr", "dsk"))
    for place in range(4, 4 + 8 * int.from_bytes(index[:4], "little"), 8):
        number, at, size = (
            int.from_bytes(index[place + a : place + b], "little")
            for a, b in ((0, 2), (2, 5), (5, 8))
        )
        at = (at & 0x7FFFFF) << 4 if at & 0x800000 else at
        data = disk[at + HEAD : at + (size & 0x3FFFFF)]
        if number in SPEECH and data.startswith(PACKED):
            yield number, unpack(data)


def unpack(data: bytes) -> bytes:
    """Return what ProPack's first method packed: Huffman-coded runs, copies and their distances."""
    bits = Bits(data, 18)
    bits.read(2)
    whole = bytearray()
    for _ in range(data[17]):
        runs, distances, lengths = (table(bits) for _ in range(3))
        for left in reversed(range(bits.read(16))):
            if run := number(bits, runs):
                whole += data[bits.at : bits.at + run]
                bits.at += run
            if not left:
                break
            begin = len(whole) - number(bits, distances) - 1
            length = number(bits, lengths) + 2
            while length:  # what is copied may reach into itself
                part = whole[begin : begin + length]
                whole += part
                begin += len(part)
                length -= len(part)
    assert len(whole) == int.from_bytes(data[4:8], "big"), "unpacked to another size than was told"
    return bytes(whole)


class Bits:
    """Bits of 16-bit words, lowest first; a word is fetched when its first bit is asked for."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.held = self.num = 0

    def read(self, num: int) -> int:
        while self.num < num:
            self.held |= int.from_bytes(self.data[self.at : self.at + 2], "little") << self.num
            self.at += 2
            self.num += 16
        value = self.held & ((1 << num) - 1)
        self.held >>= num
        self.num -= num
        return value


Table = dict[tuple[int, int], int]


def table(bits: Bits) -> Table:
    """Read a Huffman table: (length, code) to symbol."""
    lengths = [bits.read(4) for _ in range(bits.read(5))]
    found: Table = {}
    code = 0
    for length in range(1, 16):
        for symbol in (n for n, own in enumerate(lengths) if own == length):
            found[length, code] = symbol
            code += 1
        code <<= 1
    return found


def number(bits: Bits, codes: Table) -> int:
    """Read a number: its size as a Huffman code, then all of its bits but the first."""
    length = code = 0
    while (length, code) not in codes or not length:
        code = code << 1 | bits.read(1)
        length += 1
        assert length < 16, "no such code"
    size = codes[length, code]
    return size if size < 2 else bits.read(size - 1) | 1 << (size - 1)


def main(game: Path, out: Path) -> None:
    spoken = speech({str(number): data for number, data in lines(game)})
    runs = joined({key: len(samples) for key, samples in spoken.items()})
    heard_lines(spoken, runs, "en", META, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
