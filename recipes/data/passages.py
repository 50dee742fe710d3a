"""Prepare passages to ask about: `python recipes/data/passages.py TEXTS OUT HELD_OUT…`.

As `sentences.py`, of which it takes what can be said and what is held out; but OUT is one file, and
each line is a passage of 25 to 60 words whose sentences stood one behind the other, half of them
from books and half from an encyclopedia.
"""

import gzip
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sentences import HeldOut, encyclopedia, held_out_texts, plain, split, usable, words_of, write

FEWEST, MOST = 25, 60  # words


def passages(paragraphs: Iterable[str], held_out: HeldOut) -> Iterator[str]:
    """Yield the first passage of each paragraph that has one."""
    for paragraph in paragraphs:
        passage: list[str] = []
        for sentence in map(plain, split(paragraph)):
            num_words = len(words_of(" ".join([*passage, sentence])))
            is_fit = usable(sentence) and not held_out.has(sentence)
            if is_fit and num_words <= MOST:
                passage.append(sentence)
            elif passage:
                break
        if len(words_of(" ".join(passage))) >= FEWEST:
            yield " ".join(passage)


def main(texts: Path, out: Path, *held_out_paths: Path) -> None:
    held_out = HeldOut(text for path in held_out_paths for text in held_out_texts(path))
    books = gzip.decompress((texts / "books.en.txt.gz").read_bytes()).decode().splitlines()
    articles = encyclopedia(texts / "wikitext2-b.txt.gz")
    chosen = []
    for paragraphs in (books, articles):
        found = sorted(set(passages(paragraphs, held_out)))
        random.Random(0).shuffle(found)
        chosen.append(found)
    half = min(map(len, chosen))
    mixed = [passage for found in chosen for passage in found[:half]]
    random.Random(0).shuffle(mixed)
    write(out, mixed)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
