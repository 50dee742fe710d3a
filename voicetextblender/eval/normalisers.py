"""Normalisers: the form in which words are compared, by name; every score says which it was."""

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from voicetextblender.text import BASIC_VERSION, normalise

_SPELLINGS = "whisper-normalizer"


def normaliser(name: str) -> Callable[[str], str]:
    """Return the function of a normaliser's name. Raises ValueError for one that is not known."""
    if name not in NORMALISERS:
        raise ValueError(f"'{name}' is no normaliser; use one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name]()


def normalised_with(name: str, merges: bool = False) -> str:
    """Return a normaliser's name with its version, as scores are stamped with it."""
    normaliser(name)
    stamp = f"basic-{BASIC_VERSION}" if name == "basic" else name
    if name == "whisper-english":
        stamp += f" (transformers {version('transformers')}, spellings {version(_SPELLINGS)})"
    if name == "whisper-basic":
        stamp += f" (transformers {version('transformers')})"
    return f"normaliser {stamp}{', compounds merged' if merges else ''}"


def merge_compounds(reference: str, hypothesis: str) -> tuple[str, str]:
    """Write neighbouring words of one text as one where the other has them as one.

    So "ice cream" and "icecream" are the same, whichever of them was said or heard.
    """
    ref, hyp = reference.split(), hypothesis.split()
    return " ".join(_joined(ref, set(hyp))), " ".join(_joined(hyp, set(ref)))


def _joined(words: list[str], known: set[str]) -> list[str]:
    """Join two or three neighbours that together are a known word, which they are not alone."""
    joined, place = [], 0
    while place < len(words):
        taken = next(
            (
                size
                for size in (3, 2)
                if place + size <= len(words)
                and "".join(words[place : place + size]) in known
                and not known.issuperset(words[place : place + size])
            ),
            1,
        )
        joined.append("".join(words[place : place + taken]))
        place += taken
    return joined


@cache
def _whisper_english() -> Callable[[str], str]:
    """Return Whisper's own; its table of spellings comes in a package whose code is not used."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:
        table = distribution(_SPELLINGS).locate_file("whisper_normalizer/normalizers/english.json")
    except PackageNotFoundError:
        raise ValueError(
            "Whisper's table of English spellings comes with the extra 'eval': "
            "pip install 'voicetextblender[eval]'"
        ) from None
    return EnglishTextNormalizer(json.loads(Path(str(table)).read_text(encoding="utf-8")))


@cache
def _whisper_basic() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    return BasicTextNormalizer()


# Loaded when they are asked for: the spelling tables are not small.
NORMALISERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "basic": lambda: normalise,
    "none": lambda: lambda text: normalise(text, "none"),
    "whisper-english": _whisper_english,
    "whisper-basic": _whisper_basic,
}
