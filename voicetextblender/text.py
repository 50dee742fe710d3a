"""Words around the data: names of languages, wording of instructions, and when texts are equal.

The wording is the paper's: one sentence for transcription and one for translation.
"""

import re
import unicodedata
from typing import Literal

Normaliser = Literal["basic", "none"]
BASIC_VERSION = 1  # raise it when `basic` gives any text another form

LANGUAGES = {  # ISO 639-1 code: English name
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def transcribe_instruction(lang: str) -> str:
    """Return the sentence that asks for a transcript. Raises ValueError for an unknown code."""
    return f"Transcribe the content to {_name(lang)}, with punctuations and capitalizations."


def translate_instruction(source: str, target: str) -> str:
    """Return the sentence that asks for a translation. Raises ValueError for an unknown code."""
    return (
        f"Translate the {_name(source)} content to {_name(target)}, "
        f"with punctuations and capitalizations."
    )


def normalise(text: str, normaliser: Normaliser = "basic") -> str:
    """Return the text in the form in which it is compared, with single spaces between words.

    `basic` serves every language: NFKC, lower case, punctuation and symbols to spaces, but an
    apostrophe inside a word stays. Numbers are left as they are written.
    """
    if normaliser == "none":
        return " ".join(text.split())
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    kept = (" " if c != "'" and unicodedata.category(c)[0] in "PS" else c for c in text)
    return " ".join("".join(kept).split())


def _name(lang: str) -> str:
    if lang not in LANGUAGES:
        raise ValueError(
            f"language '{lang}' has no name here; use one of {', '.join(LANGUAGES)}, "
            f"or write the instruction yourself"
        )
    return LANGUAGES[lang]
