import pytest

from voicetextblender.synth import quality
from voicetextblender.synth.quality import (
    agreement,
    content_words,
    copies,
    is_written_in,
    repeats_itself,
)


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("It is what it is, and it will be what it will be.", False),
        ("I like the sea. " * 3, True),
        ("- one more thing\n- another thing\n- one more thing", True),
        ("Yes.\nYes.", False),
        ("", False),
    ],
)
def test_a_text_that_runs_in_circles_is_told_from_one_that_does_not(text, is_so):
    assert repeats_itself(text) is is_so


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("The train was late, and we had to wait for it.", "en"),
        ("Der Zug kam zu spät, und wir mussten auf ihn warten.", "de"),
        ("Le train est en retard et nous devons l'attendre.", "fr"),
        ("El tren llegó tarde y tuvimos que esperar.", "es"),
        ("Поезд опоздал, и нам пришлось ждать.", "ru"),
        ("電車が遅れたので、待ちました。", "ja"),
    ],
)
def test_the_language_of_a_text_is_right_and_others_are_wrong(text, lang):
    assert is_written_in(text, lang)
    for other in {"en", "de", "fr", "es", "ru", "ja"} - {lang}:
        assert not is_written_in(text, other)


def test_a_short_text_or_a_name_may_be_in_any_language():
    assert is_written_in("Where do I find it?", "en")  # "do" is Portuguese, too
    assert is_written_in("Berlin, 1989", "en") and is_written_in("Berlin, 1989", "fi")


def test_a_long_stretch_of_the_context_is_a_copy_and_a_short_answer_is_none():
    context = "The ferry was late again, so Mr. Bell missed his train and took a taxi."
    assert copies(f"It says: {context}", context)
    assert copies("the ferry was late again so mr bell missed his train", context)
    assert not copies("He took a taxi.", context)


def test_content_words_are_those_that_carry_meaning():
    assert content_words("What did Mr. Bell's 3 cats say there?") == {"bell", "3", "cats"}


def test_agreement_is_one_for_the_same_words_and_falls_with_others(monkeypatch):
    def missing():
        raise ValueError("not installed")

    monkeypatch.setattr(quality, "_embeddings", missing)
    same, near, far = agreement(
        ["He took a taxi."] * 3, ["he took a taxi", "By taxi, he says.", "No."]
    )
    assert same == 1 > near > far == 0
    assert agreement([], []) == []


@pytest.mark.slow
def test_agreement_by_meaning_sees_through_other_words(need_part):
    need_part("all-minilm-l6-v2")
    near, far = agreement(["She is unwell."] * 2, ["She feels ill.", "The car is red."])
    assert near > 0.6 > 0.3 > far
