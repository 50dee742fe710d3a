"""Prepare text to speak: `python recipes/data/sentences.py TEXTS OUT HELD_OUT…`.

TEXTS holds `tatoeba.en-*.tsv.gz`, `books.en.txt.gz` and `wikitext2-a.txt.gz`; OUT gets
`everyday.en.txt.gz`, `books.en.txt.gz`, `encyclopedia.en.txt.gz`, one sentence a line, paragraphs
in random order, and `pairs.en-XX.tsv.gz`, sentence and translation. HELD_OUT are files of test
sets (JSONL of conversations, `id|text|…` tables, plain text): a sentence that shares most of its
words, or seven words in a row, with one of theirs is left out. Same input, same bytes.
"""

import gzip
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from voicetextblender.chat import parse_line

SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\b[A-Z])([.!?])\s+(?=[A-Z])")
# What a voice can say and a transcript would hold: no brackets, marks of cut text, other alphabets.
SAYABLE = re.compile(r"[A-Z0-9][A-Za-z0-9 ,;:.!?'$%&é-]*[.!?]")
ODD = re.compile(r"\b[A-Z]{4,}\b|\b[MDCLXVI]{2,}\b|\d{5}|\b(Chapter|CHAPTER)\b|[a-z]\.[a-z]|  ")
LONGEST = 270  # characters: about 20 s
SAME_BEGINNING = 12  # everyday sentences at most with the same first three words
WINDOW = 7  # words in a row


class HeldOut:
    """Sentences of test sets, and whether a sentence is like one of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.sentences = [words for text in texts for words in map(words_of, split(text)) if words]
        self.runs = {run for words in self.sentences for run in runs_of(words)}
        self.with_word = defaultdict(set)
        for number, words in enumerate(self.sentences):
            for word in words:
                self.with_word[word].add(number)

    def has(self, sentence: str) -> bool:
        words = words_of(sentence)
        if not self.runs.isdisjoint(runs_of(words)):
            return True
        shared = Counter(n for word in {*words} for n in self.with_word.get(word, ()))
        return any(
            count > 0.6 * len({*words, *self.sentences[n]}) for n, count in shared.most_common(20)
        )


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("’", "'"))


def runs_of(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[n : n + WINDOW]) for n in range(len(words) - WINDOW + 1)}


def held_out_texts(path: Path) -> Iterator[str]:
    """Yield what is said in a test set, whatever form it has."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if path.suffix == ".jsonl":
            yield from (clip.text or "" for clip in parse_line(line, f"{path}:{number}").clips)
        else:
            yield line.split("|")[1] if "|" in line else line


def split(paragraph: str) -> list[str]:
    return SENTENCE_END.sub(r"\1\n", paragraph).split("\n")


def plain(text: str) -> str:
    """Undo typography that is not heard: double quotes, underscores, dashes."""
    text = re.sub(r'["“”_*]', "", text.replace("’", "'").replace("‘", "'"))
    text = re.sub(r"\s*(--+|—| – )\s*(?=\w)", ", ", text)
    text = re.sub(r"(--+|—)", "", text)
    return re.sub(r"\s+", " ", re.sub(r"([,;:!?])(\s*[,])+", r"\1", text)).strip()


def detokenised(text: str) -> str:
    """Undo WikiText's spacing: `a 6 @-@ foot " wall " , he said .` becomes plain prose."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:?!)%]|'(s|t|m|d|re|ll|ve)\b)|(?<=[($]) ", r"\1", text)
    return re.sub(r"(?<=\d) ?– ?(?=\d)", " to ", text).strip()


def usable(sentence: str) -> bool:
    quotes = re.findall(r"(?<![a-z])'|'(?![a-z])", sentence)  # not those of contractions
    return (
        len(sentence) <= LONGEST
        and bool(SAYABLE.fullmatch(sentence))
        and not ODD.search(sentence)
        and not quotes
    )


def everyday(texts: Path, held_out: HeldOut, rng: random.Random) -> list[list[str]]:
    sentences = sorted({plain(en) for path in tables(texts) for en, _ in pairs(path)})
    rng.shuffle(sentences)
    begun: Counter[tuple[str, ...]] = Counter()
    kept = []
    for sentence in sentences:
        words = words_of(sentence)
        # One sentence in five is about Tom.
        often = "tom" in words and rng.random() < 0.7
        if often or begun[tuple(words[:3])] >= SAME_BEGINNING or held_out.has(sentence):
            continue
        if usable(sentence):
            begun[tuple(words[:3])] += 1
            kept.append([sentence])
    return kept


def tables(texts: Path) -> list[Path]:
    return sorted(texts.glob("tatoeba.en-*.tsv.gz"))


def pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        english, _, other = line.partition("\t")
        yield english.strip(), other.split("\t")[0].strip()


def paragraphs(lines: Iterable[str], held_out: HeldOut, rng: random.Random) -> list[list[str]]:
    kept = []
    for line in lines:
        sentences = [s for s in map(plain, split(line)) if usable(s) and len(words_of(s)) > 2]
        kept.append([s for s in sentences if not held_out.has(s)])
    rng.shuffle(kept)
    return kept


def encyclopedia(path: Path) -> list[str]:
    """Return WikiText's paragraphs, without sentences that have an unknown word."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    prose = [line.strip() for line in lines if not line.startswith(" =") and "." in line]
    return [
        " ".join(detokenised(s) for s in re.split(r"(?<= \.) ", line) if "<unk>" not in s)
        for line in prose
    ]


def write(path: Path, lines: Iterable[str]) -> None:
    """Write lines; no time stamp, so that the same lines make the same file."""
    lines = list(lines)
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0))
    characters = sum(map(len, lines))
    print(f"{path}: {len(lines)} lines, about {characters / 12 / 3600:.0f} h when spoken")


def main(texts: Path, out: Path, *held_out_paths: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    held_out = HeldOut(text for path in held_out_paths for text in held_out_texts(path))
    print(f"{len(held_out.sentences)} sentences of test sets are kept out")
    books = gzip.decompress((texts / "books.en.txt.gz").read_bytes()).decode().splitlines()
    kinds = {
        "everyday": everyday(texts, held_out, random.Random(0)),
        "books": paragraphs(books, held_out, random.Random(0)),
        "encyclopedia": paragraphs(
            encyclopedia(texts / "wikitext2-a.txt.gz"), held_out, random.Random(0)
        ),
    }
    for kind, blocks in kinds.items():
        write(out / f"{kind}.en.txt.gz", (sentence for block in blocks for sentence in block))
    for path in tables(texts):
        once = {plain(en): other for en, other in pairs(path) if usable(plain(en))}
        rows = [f"{en}\t{other}" for en, other in once.items() if not held_out.has(en)]
        random.Random(0).shuffle(rows)
        write(out / path.name.replace("tatoeba", "pairs"), rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
