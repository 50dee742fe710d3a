"""Words around the data: the names of languages and the wording of instructions.

The wording is the paper's: one sentence for transcription and one for translation.
"""

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


def _name(lang: str) -> str:
    if lang not in LANGUAGES:
        raise ValueError(
            f"language '{lang}' has no name here; use one of {', '.join(LANGUAGES)}, "
            f"or write the instruction yourself"
        )
    return LANGUAGES[lang]
