"""Words around the data: names of languages, wording of instructions, and when texts are equal.

The paper asks for a transcript in one fixed sentence, and for a translation in another; the varied
wordings ask as people do, in English or in the language that the answer is in.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

Normaliser = Literal["basic", "none"]
BASIC_VERSION = 2  # raise it when `basic` gives any text another form

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

_TRANSCRIBE = {
    "en": (
        "Transcribe this recording.",
        "What is being said here?",
        "Please write down what you hear.",
        "Turn this into text.",
        "Type up this audio for me.",
        "Give me the transcript of this {lang} clip.",
        "This is somebody speaking {lang}. Write down exactly what they say.",
        "transcribe pls",
        "Could you tell me, word for word, what the speaker says?",
        "Speech to text:",
    ),
    "de": ("Schreib auf, was gesagt wird.", "Was wird hier gesagt?", "Bitte transkribieren:"),
    "es": ("Transcribe esta grabación.", "¿Qué se dice aquí?", "Escribe lo que oyes, por favor."),
    "fr": ("Transcris cet enregistrement.", "Que dit-on ici ?", "Écris ce que tu entends."),
    "it": ("Trascrivi questa registrazione.", "Che cosa si dice qui?", "Scrivi quello che senti."),
}
_TRANSLATE = {
    "en": (
        "Translate this into {target}.",
        "What does this mean in {target}?",
        "How would you say this in {target}?",
        "Please give me the {target} translation of this {lang} recording.",
        "I do not understand {lang}. What is being said, in {target}?",
        "{target} translation:",
    ),
    "de": ("Übersetze das ins Deutsche.", "Was heißt das auf Deutsch?"),
    "es": ("Tradúcelo al español.", "¿Qué significa esto en español?"),
    "fr": ("Traduis cela en français.", "Qu'est-ce que cela veut dire en français ?"),
    "it": ("Traducilo in italiano.", "Che cosa significa in italiano?"),
}
_PLAIN = {
    "en": "Leave out punctuation and capitals.",
    "de": "Ohne Satzzeichen und alles klein.",
    "es": "Sin puntuación ni mayúsculas.",
    "fr": "Sans ponctuation ni majuscules.",
    "it": "Senza punteggiatura né maiuscole.",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """How a transcript or a translation is asked for, and in which form."""

    instruction: str
    is_plain: bool = False
    """Without punctuation and capitals."""

    def answer(self, text: str) -> str:
        """Return the text in the form that is asked for."""
        return normalise(text) if self.is_plain else text


def draw_wording(random: np.random.Generator, lang: str, target: str | None = None) -> Wording:
    """Draw one of many wordings; `target` asks for a translation into it.

    A fifth are the paper's, a third of the others are in the language of the answer, if it is known
    here, and a quarter ask for plain text. Raises ValueError for an unknown code.
    """
    if random.random() < 0.2:
        fixed = translate_instruction(lang, target) if target else transcribe_instruction(lang)
        return Wording(fixed)
    wordings = _TRANSLATE if target else _TRANSCRIBE
    answer_lang = target or lang
    asked_in = answer_lang if answer_lang in wordings and random.random() < 1 / 3 else "en"
    form = wordings[asked_in][int(random.integers(len(wordings[asked_in])))]
    instruction = form.format(lang=_name(lang), target=_name(target or lang))
    if random.random() < 0.25:
        return Wording(f"{instruction} {_PLAIN[asked_in]}", is_plain=True)
    return Wording(instruction)


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
    text = "".join(" " if c != "'" and unicodedata.category(c)[0] in "PS" else c for c in text)
    return " ".join(re.sub(r"(?<!\w)'|'(?!\w)", " ", text).split())


@cache
def english_forms() -> Callable[[str], str]:
    """Return Whisper's normaliser: numbers in digits, no contractions; its spellings left out."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def _name(lang: str) -> str:
    if lang not in LANGUAGES:
        raise ValueError(
            f"language '{lang}' has no name here; use one of {', '.join(LANGUAGES)}, "
            f"or write the instruction yourself"
        )
    return LANGUAGES[lang]
