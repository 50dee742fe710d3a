import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.eval.checks import (
    CHECKS,
    SlotCounts,
    check,
    comparable,
    invented_words,
    is_honest,
    is_refusal,
    slot_counts,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
ORDER = {"size": "large", "numberOfShots": "double shot", "milkAmount": " soy milk"}


def asked(*checks, reference="yes"):
    meta = {"check": list(checks)}
    return Conversation("q", (user("?"), assistant(reference)), meta=meta)


@pytest.mark.parametrize(
    ("name", "settings", "right", "wrong"),
    [
        ("says", {"any_of": ["Paris"]}, "It is PARIS.", "Comparison shows it."),
        ("says", {"any_of": ["8", "octo"]}, "A spider has eight legs.", "Eighty."),
        ("says", {"any_of": ["don't know"]}, "I don’t know!", "I know."),
        ("says_all", {"words": ["red", "blue"]}, "Blue and red.", "Reddish, green."),
        ("avoids", {"words": ["sorry"]}, "Fine.", "Sorry!"),
        ("avoids", {"words": ["sorry"]}, "Fine.", " "),
        ("is_one_of", {"any_of": ["blue"]}, "Blue.", "The word blue."),
        ("number", {"value": 5, "given": [2, 3]}, "2 + 3 = 5.", "2 + 3 = 6"),
        ("number", {"value": 5, "given": [2, 3]}, "It is five", "5 or 6"),
        ("number", {"value": 5, "given": [2, 3]}, "Let me see.\n2 + 3 = 5\nIn 4 steps.", "6\n5"),
        ("number", {"value": 5, "given": [2, 3]}, "Two and three (5).", "Two, three."),
        ("number", {"value": 23}, "twenty-three", "2, 3"),
        ("number", {"value": 1250}, "1,250 metres", "1 250"),
        ("number", {"value": 3.5}, "3.5", "35"),
        ("number", {"value": 1}, "1", "the 2nd"),
        ("transcript", {"text": "It's ten to 5."}, "It is 10 to five", "no more"),
        ("slots", {"wanted": ORDER}, json.dumps(ORDER), "A large coffee"),
        ("no_speech", {}, "", "Thank you for watching."),
        ("no_speech", {}, "There is no speech in this recording.", "No."),
        ("upper_case", {}, "THE SEA, 1 O'CLOCK", "THe sea"),
        ("upper_case", {}, "É", "12"),
        ("lower_case", {}, "the sea!", "The sea"),
        ("length", {"least": 2, "most": 3}, "one two", "one"),
        ("length", {"unit": "sentences", "most": 2}, "Yes! It is.", "A. B. C."),
        ("length", {"unit": "lines", "least": 2}, "a\n\nb", "a\n\n"),
        ("length", {"unit": "paragraphs", "least": 2}, "a\n\nb", "a\nb"),
        ("bullets", {"least": 2, "most": 2}, "Here:\n- a\n * b", "- a\n- b\n- c"),
        ("bullets", {"least": 1}, "• tea", "**tea**"),
        ("frequency", {"word": "sea", "least": 2}, "Sea, the sea", "The season, the sea"),
        ("starts_with", {"text": "Dear Ann"}, "dear Ann, hello", "Dear Anna"),
        ("ends_with", {"text": "Goodbye"}, "So: goodbye!", "No goodbyes"),
        ("quoted", {}, ' "The sea."\n', '"The" sea'),
        ("no_comma", {}, "a; b", "a, b"),
        ("is_json", {"keys": ["a"]}, '```json\n{"a": 1}\n```', '{"b": 1}'),
        ("is_json", {}, "{}", "Here it is: {}"),
        ("python", {"defines": "add"}, "```python\ndef add(a, b):\n  return a\n```", "def add(:"),
        ("python", {"defines": "add", "num_arguments": 2}, "def add(a, b): pass", "def add(a): 1"),
    ],
)
def test_a_check_tells_right_from_wrong(name, settings, right, wrong):
    one = {"name": name, **settings}
    assert check(asked(one), right) == 1.0
    assert check(asked(one), wrong) == 0.0


def test_every_check_tells_right_from_wrong_above():
    (mark,) = test_a_check_tells_right_from_wrong.pytestmark
    assert {name for name, *_ in mark.args[1]} == CHECKS.keys()


def test_an_answer_is_worth_the_least_of_its_checks():
    both = asked({"name": "upper_case"}, {"name": "says_all", "words": ["a", "b"]})
    assert check(both, "A B") == 1.0
    assert check(both, "A") == 0.5
    assert check(both, "a b") == 0.0


@pytest.mark.parametrize("name", sorted(CHECKS))
@given(answer=TEXT)
def test_no_answer_breaks_a_check_or_is_worth_more_than_one(name, answer):
    settings = {
        "says": {"any_of": ["a"]},
        "says_all": {"words": ["a", "b"]},
        "avoids": {"words": ["a"]},
        "is_one_of": {"any_of": ["a"]},
        "number": {"value": 1},
        "transcript": {"text": "a"},
        "slots": {"wanted": {"a": 1}},
        "frequency": {"word": "a"},
        "starts_with": {"text": "a"},
        "ends_with": {"text": "a"},
        "python": {"defines": "a"},
    }
    assert 0.0 <= check(asked({"name": name, **settings.get(name, {})}), answer) <= 1.0


@pytest.mark.parametrize("asked_for", [None, [], "says", [{"any_of": ["a"]}]])
def test_a_conversation_without_a_check_is_named(asked_for):
    with pytest.raises(ValueError, match="'q': meta.check is .* must be an object with a 'name'"):
        check(Conversation("q", (assistant("a"),), meta={"check": asked_for}), "a")


def test_a_check_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match="'q': check 'say' is unknown; use one of says, "):
        check(asked({"name": "say"}), "a")


def test_settings_that_a_check_does_not_take_are_refused_with_those_it_does():
    with pytest.raises(ValueError, match="'q': check 'bullets': .*'count'; it takes least, most"):
        check(asked({"name": "bullets", "count": 3}), "a")
    with pytest.raises(ValueError, match="unit is 'letters'; it must be one of words, sentences"):
        check(asked({"name": "length", "unit": "letters"}), "a")


def test_slots_count_when_key_and_value_agree_whatever_their_spelling():
    reference = asked(reference=json.dumps(ORDER))
    said = '```json\n{"Size": "Large", "numberOfShots": "2 shots", "roast": "dark"}\n``` Enjoy!'
    assert slot_counts(reference, said) == SlotCounts(right=1, said=3, wanted=3)
    assert slot_counts(reference, said).f1 == pytest.approx(1 / 3)
    assert slot_counts(reference, json.dumps(ORDER)).f1 == 1.0
    assert slot_counts(reference, "A large coffee.") == SlotCounts(0, 0, 3)


def test_numbers_in_slots_may_be_words_or_digits():
    reference = asked(reference='{"size": "twelve ounce"}')
    assert slot_counts(reference, '{"size": "12 ounce"}').f1 == 1.0


def test_the_intent_is_no_slot_as_it_is_right_for_nearly_all():
    reference = asked(reference='{"intent": "order", "size": "large"}')
    assert slot_counts(reference, '{"intent": "order"}') == SlotCounts(0, 0, 1)


def test_an_order_of_nothing_is_right_when_nothing_is_said():
    assert slot_counts(asked(reference="{}"), "{}").f1 == 1.0


def test_a_reference_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="'q': the reference 'yes' is no JSON object"):
        slot_counts(asked(), "{}")


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4), TEXT)
def test_f1_is_between_nothing_and_all(order, answer):
    counts = slot_counts(asked(reference=json.dumps(order)), answer)
    assert counts.right <= min(counts.said, counts.wanted)
    assert 0.0 <= counts.f1 <= 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "No speech.",
        "I hear no words.",
        "Nobody speaks; there is nothing to transcribe.",
        "The recording is silent.",
        "I can only hear background noise.",
        "There is no one speaking in the clip.",
        "(silence)",
    ],
)
def test_an_honest_answer_to_silence_invents_no_word(answer):
    assert invented_words(answer) == 0


@pytest.mark.parametrize("answer", ["Thank you.", "you", "Please enter the number."])
def test_words_that_nobody_said_are_counted(answer):
    assert invented_words(answer) == len(answer.split())
    assert not is_honest(answer)


def test_a_tale_about_silence_is_not_honest():
    assert invented_words("He sat down in silence and told me all about " + "his life " * 9) > 0


def test_refusals_are_known_by_their_words():
    assert is_refusal("I'm sorry, but I can’t help with that.")
    assert is_refusal("As an AI language model, I have no ears.")
    assert not is_refusal("Press six to play the next message.")


@given(TEXT)
def test_what_was_made_comparable_stays_as_it_is(text):
    assert comparable(text).split() == comparable(text).lower().split()
