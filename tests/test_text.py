"""The wording of instructions, and when texts are equal."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voicetextblender.text import (
    LANGUAGES,
    draw_wording,
    normalise,
    transcribe_instruction,
    translate_instruction,
)


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


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Press 6, then  “Pound”!\n", "press 6 then pound"),
        ("Don’t say 'no', it's l'été.", "don't say no it's l'été"),
        ("twenty-one—or so", "twenty one or so"),
        ("ﬁne ＡＢ", "fine ab"),
        ("नमस्ते, दुनिया", "नमस्ते दुनिया"),
        ("你好，世界。", "你好 世界"),
        ("...", ""),
    ],
)
def test_the_basic_form_has_no_case_and_no_punctuation_in_any_language(text, form):
    assert normalise(text) == form


@given(st.text(max_size=30))
@example("0'_")  # an underscore is a part of words until it is taken out
def test_a_normalised_text_stays_as_it_is(text):
    assert normalise(normalise(text)) == normalise(text)


def test_without_a_normaliser_only_spaces_change():
    assert normalise(" Hello,\t World! ", "none") == "Hello, World!"


def test_drawn_wordings_are_many_and_the_answer_has_the_form_that_is_asked_for():
    random = np.random.default_rng(0)
    drawn = [draw_wording(random, "de") for _ in range(300)]
    assert len({wording.instruction for wording in drawn}) > 15
    assert transcribe_instruction("de") in {wording.instruction for wording in drawn}
    assert any("gesagt" in wording.instruction for wording in drawn)
    plain = [wording for wording in drawn if wording.is_plain]
    assert 0.1 < len(plain) / len(drawn) < 0.3
    for wording in drawn:
        asks = "punctuation and capitals." in wording.instruction or "klein" in wording.instruction
        assert asks == wording.is_plain
        assert wording.answer("Na, so was!") == ("na so was" if asks else "Na, so was!")


def test_a_translation_is_asked_for_by_the_name_of_its_language_or_in_it():
    random = np.random.default_rng(0)
    for target, own in (("fr", "français"), ("ko", "Korean")):
        drawn = [draw_wording(random, "en", target).instruction for _ in range(100)]
        assert all(own in wording or LANGUAGES[target] in wording for wording in drawn)
    with pytest.raises(ValueError, match="language 'xx' has no name here"):
        draw_wording(random, "en", "xx")
