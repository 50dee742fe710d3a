"""The wording of instructions."""

import pytest

from voicetextblender.text import LANGUAGES, transcribe_instruction, translate_instruction


def test_instructions_are_worded_as_in_the_paper():
    assert transcribe_instruction("en") == (
        "Transcribe the content to English, with punctuations and capitalizations."
    )
    assert translate_instruction("de", "en") == (
        "Translate the German content to English, with punctuations and capitalizations."
    )


def test_codes_are_in_order_and_names_are_distinct():
    assert list(LANGUAGES) == sorted(LANGUAGES)
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="language 'xx' has no name here; use one of ar, cs"):
        transcribe_instruction("xx")
    with pytest.raises(ValueError, match="language 'yy'"):
        translate_instruction("en", "yy")
