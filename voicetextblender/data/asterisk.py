"""What the Asterisk prompts say: the packages' listings, read and corrected.

A listing has a line `key: text` for each recording. Some lines are no speech, some hold notes to
the speaker, and the spelling is that of many hands: asterisk.yaml has the corrections. This module
knows nothing of sound.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

# The names of letters are each language's own, so one is no translation of the other.
NO_TRANSLATION = re.compile(r"(letters/\w|phonetic/.*)$")

_NO_SPEECH = {
    "silence": re.compile(r"silence/"),
    "tone or noise": re.compile(r"(beep(err)?|\w+-2tone|confbridge-(join|leave)|tt-monkeys)$"),
}


@dataclass(frozen=True, slots=True)
class _Corrections:
    """What asterisk.yaml says of a language."""

    numbers: str
    spelling: Mapping[str, str]
    phrases: Sequence[tuple[str, str]]
    heard: Mapping[str, str]
    uncertain: str = ""


def read_listing(lines: Iterable[str], lang: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the corrected text of each key, and of the other keys why they are left out."""
    tables = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    known = _Corrections(**tables[lang])
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for line in lines:
        key, colon, text = line.strip().partition(":")
        if line.startswith(";") or not colon or key in texts:
            continue  # Spanish lists 0 twice, and the first is right
        text = known.heard.get(key, text)
        if reason := _why_not(key, text, known.uncertain):
            left_out[key] = reason
        else:
            texts[key] = _correct(key, text, known)
    return texts, left_out


def _why_not(key: str, text: str, uncertain: str) -> str | None:
    """Return why a line has no text to learn from, or None if it has."""
    if re.fullmatch(uncertain, key):
        return "recording says otherwise"
    for reason, keys in _NO_SPEECH.items():
        if keys.match(key):
            return reason
    if re.search(r"\[[^\W\d_]", text):
        return "words in brackets"  # spoken or not: the listing does not say
    text = _without_notes(text)
    if not re.search(r"[^\W\d_]", text):
        return "no text"
    if re.search(r"\d[\d.,]*\d|\d[^\W\d_]|[^\W\d_]\d|[*#/]", text):
        return "number or sign not spelt out"
    return None


def _without_notes(text: str) -> str:
    """Remove notes to the speaker, and a following entry that lost its line break."""
    text = re.sub(r"\([^)]*\)|\[[^]]*\]|<[^>]*>", " ", text)
    return re.sub(r"(?<=\S)\s*\b(vm|conf|confbridge)-[a-z-]+: .*", "", text)


def _correct(key: str, text: str, known: _Corrections) -> str:
    """Return the text as a sentence: spelt, spaced, numbers in words, from capital to full stop."""
    numbers = known.numbers.split()
    text = f"{key}: " + re.sub(r"[\"“”„«»]", "", _without_notes(text)).strip()
    for pattern, replacement in known.phrases:
        text = re.sub(pattern, replacement, text)
    text = text.removeprefix(f"{key}: ")
    text = re.sub(r"[^\W\d_]+", lambda word: _respell(word[0], known.spelling), text)
    text = re.sub(r"\d", lambda digit: numbers[int(digit[0])], text)
    text = text.replace("…", "...").replace("’", "'")
    text = re.sub(r"\s+([.,;:?!])", r"\1", text)  # "mensaje ?"
    text = re.sub(r"(?<=[^\W\d_])([.,;:?!])(?=[A-ZÀ-ÝА-Я][a-zà-ýа-я])", r"\1 ", text)  # "cinq.Pour"
    text = " ".join(text.split()).strip(" .,:;")  # "...for..." is what is said between two others
    text = re.sub(r"^[^\W\d_]|(?<=[.?!] )[^\W\d_]", lambda first: first[0].upper(), text)
    return text if text[-1] in "?!" else text + "."


def _respell(word: str, spelling: Mapping[str, str]) -> str:
    right = spelling.get(word.lower(), word)
    return right[0].upper() + right[1:] if word[0].isupper() else right
