"""Prepare a dictionary to be spoken: `python recipes/data/dictionary.py WORDNET OUT HELD_OUT…`.

WORDNET is the folder with `data.noun` and its like (Debian's `wordnet-base`: WordNet 3.0, free to
use). CTC can only spell the tokens that it has heard, and everyday sentences and old novels have
few of them: no hexagon, no continent, no Norway. Definitions, examples and short questions about
words have nearly all, so a sentence is kept if one of its tokens, SmolLM2's, is rare so far.
HELD_OUT are test sets, as for `sentences.py`. Same input, same bytes.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sentences import HeldOut, held_out_texts, plain, usable, words_of, write
from transformers import AutoTokenizer

from voicetextblender.model.parts import resolve

WANTED = 3  # times that each token is spoken
MOST = 24  # words of a sentence
SHARE_ASKED = 0.2  # of the words, by a question
LOCATION, PERSON = "15", "18"  # WordNet's files of nouns
KINDS = ("noun", "verb", "adj", "adv")


@dataclass(frozen=True, slots=True)
class Sense:
    """A meaning of a word."""

    kind: str
    field: str
    """Number of WordNet's file, such as `LOCATION`."""
    word: str
    definition: str
    examples: tuple[str, ...]

    @property
    def is_name(self) -> bool:
        return not self.word.islower()

    def sentences(self, rng: random.Random) -> Iterator[str]:
        """Yield what can be said of it."""
        for example in self.examples:
            yield example[:1].upper() + example[1:].rstrip(" .,;") + "."
        yield self.defined()
        if rng.random() < SHARE_ASKED:
            yield self.asked(rng)

    def defined(self) -> str:
        is_thing = bool(re.match(r"(an?|the|any|one)\b", self.definition))
        if self.kind == "verb":
            return f"To {self.word} is to {self.definition}."
        if self.kind == "noun" and is_thing and self.is_name:
            return f"{self.word} is {self.definition}."
        if self.kind == "noun" and is_thing:
            return f"{_with_article(self.word).capitalize()} is {self.definition}."
        return f"{self.word[:1].upper()}{self.word[1:]} means {self.definition}."

    def asked(self, rng: random.Random) -> str:
        if self.kind != "noun":
            return rng.choice(("What does {} mean?", "How do you spell {}?")).format(self.word)
        if not self.is_name:
            asks = "What is {}?", "Have you ever seen {}?", "Tell me about {}.", "Describe {}."
            return rng.choice(asks).format(_with_article(self.word))
        asks = {
            LOCATION: ("Where is {}?", "Have you been to {}?", "How far is it to {}?"),
            PERSON: ("Who was {}?", "What do you know about {}?"),
        }.get(self.field, ("What is {}?", "What do you know about {}?"))
        return rng.choice(asks).format(self.word)


def senses(folder: Path) -> Iterator[Sense]:
    """Yield each meaning of each word, by its first name."""
    for kind in KINDS:
        for line in (folder / f"data.{kind}").read_text("utf-8").splitlines():
            entry, _, gloss = line.partition(" | ")
            if line.startswith(" ") or not gloss:
                continue  # the licence
            _, field, _, _, word = entry.split()[:5]
            quoted = tuple(re.findall(r'"([^"]+)"', gloss))
            definition = re.sub(r"\([^)]*\)|\"[^\"]*\"", "", gloss).split(";")[0]
            word = re.sub(r"\(.*", "", word).replace("_", " ")
            yield Sense(kind, field, word, plain(definition).rstrip(" .,:"), quoted)


def covering(sentences: list[str]) -> list[str]:
    """Return the sentences that have a token which those before them have seldom."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m"))
    heard: Counter[int] = Counter()
    kept = []
    for sentence, ids in zip(sentences, tokenizer(sentences)["input_ids"], strict=True):
        tokens = set(ids)
        if any(heard[token] < WANTED for token in tokens):
            heard.update(tokens)
            kept.append(sentence)
    return kept


def main(folder: Path, out: Path, *held_out_paths: Path) -> None:
    if not (folder / "data.noun").is_file():
        raise SystemExit(f"{folder}: no data.noun in it; run `apt-get install wordnet-base`")
    rng = random.Random(0)
    held_out = HeldOut(text for path in held_out_paths for text in held_out_texts(path))
    told = {plain(text) for sense in senses(folder) for text in sense.sentences(rng)}
    fit = sorted(text for text in told if usable(text) and 2 < len(words_of(text)) <= MOST)
    rng.shuffle(fit)
    write(out, [text for text in covering(fit) if not held_out.has(text)])


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
