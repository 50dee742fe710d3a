"""Normalisers: the form in which words are compared, by name; every score says which it was."""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version

from voicetextblender.text import BASIC_VERSION, normalise


def normaliser(name: str) -> Callable[[str], str]:
    """Return the function of a normaliser's name. Raises ValueError for one that is not known."""
    if name not in NORMALISERS:
        raise ValueError(f"'{name}' is no normaliser; use one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name]()


def normalised_with(name: str, merges: bool = False) -> str:
    """Return a normaliser's name with its version, as scores are stamped with it."""
    normaliser(name)
    if name.startswith("whisper"):
        stamp = f"{name} (whisper-normalizer {version('whisper-normalizer')})"
    else:
        stamp = f"basic-{BASIC_VERSION}" if name == "basic" else name
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
def _whisper(module: str, kind: str) -> Callable[[str], str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package has escapes that Python frowns upon
            return getattr(import_module(f"whisper_normalizer.{module}"), kind)()
    except ImportError:
        raise ValueError(
            "Whisper's normalisers come with the extra 'eval': pip install 'voicetextblender[eval]'"
        ) from None


# Loaded when they are asked for: the spelling tables are not small.
NORMALISERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "basic": lambda: normalise,
    "none": lambda: lambda text: normalise(text, "none"),
    "whisper-english": lambda: _whisper("english", "EnglishTextNormalizer"),
    "whisper-basic": lambda: _whisper("basic", "BasicTextNormalizer"),
}
