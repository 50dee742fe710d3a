from dataclasses import replace
from importlib.metadata import version

import jiwer
import pytest

from voicetextblender.chat import Conversation, assistant, user
from voicetextblender.eval.metrics import estimate
from voicetextblender.eval.predict import Prediction
from voicetextblender.eval.scorers import Answers, last_number, scorer


def answered(pairs, scores=((),) * 9, **others) -> Answers:
    """Answers to items, from pairs of a reference and an answer; a third is the meta."""
    items = [
        Conversation(f"i{n}", (user("?"), assistant(pair[0])), meta=pair[2] if pair[2:] else {})
        for n, pair in enumerate(pairs)
    ]
    found = [
        Prediction(item.id, "", "m", "d", pair[1], tuple(s))
        for item, pair, s in zip(items, pairs, scores, strict=False)
    ]
    return Answers(items, found, **others)


def values(name, pairs, **others) -> dict[str, float]:
    return {m.name: estimate(m).value for m in scorer(name)(answered(pairs, **others))}


def test_word_errors_are_jiwers_own_on_normalised_text():
    pairs = [("Press six, please!", "press sex please now"), ("Hello", "")]
    found = values("wer", pairs)
    assert found["wer"] == jiwer.wer(["press six please", "hello"], ["press sex please now", ""])
    assert found["wer"] == pytest.approx(sum(found[k] for k in list(found)[2:]))
    assert (found["substitutions"], found["deletions"], found["insertions"]) == (1 / 4,) * 3


def test_a_reference_without_words_is_named_and_an_empty_answer_has_lost_all():
    with pytest.raises(ValueError, match=r"'i1': the reference '\?!' has no words"):
        scorer("wer")(answered([("a", "a"), ("?!", "b")]))
    assert values("wer", [("to be", "")])["wer"] == 1.0


def test_the_normaliser_decides_and_is_named_with_its_version():
    pairs = [("COUNSELLED in the colour twenty-one", "counseled in the color 21")]
    assert values("wer", pairs, normaliser="whisper-english")["wer"] == 0.0
    assert values("wer", pairs, normaliser="basic")["wer"] > 0.5
    (metric, *_) = scorer("wer")(answered(pairs, normaliser="whisper-english"))
    assert metric.scored_with == (
        f"normaliser whisper-english (transformers {version('transformers')}, "
        f"spellings {version('whisper-normalizer')}), jiwer {version('jiwer')}"
    )


def test_compounds_are_merged_where_that_is_asked():
    pairs = [("ice cream on a week day", "icecream on a weekday")]
    assert values("wer", pairs)["wer"] == 4 / 6
    assert values("wer", pairs, merge_compounds=True)["wer"] == 0.0
    assert values("wer", [("a a", "aa a")], merge_compounds=True)["wer"] > 0  # not by eating words


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wre", "'wre' is no scorer; use one of wer"),
        ("wer", "'baisc' is no normaliser; use one of"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        scorer(name)(answered([("a", "a")], normaliser="baisc"))


def test_bleu_and_chrf_are_sacrebleus_with_its_signatures():
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = [
        ("The cat sat on the mat today.", "The cat sat on a mat today."),
        ("Press six to play the message.", "Press the six to play it again."),
    ]
    hypotheses, references = [h for _, h in pairs], [[r for r, _ in pairs]]
    found = values("translation", pairs)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, references).score / 100)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, references).score / 100)
    bleu, chrf = scorer("translation")(answered(pairs))
    assert "nrefs:1|case:mixed|eff:no|tok:13a" in bleu.scored_with
    assert f"version:{sacrebleu.__version__}" in chrf.scored_with


def test_questions_take_the_best_of_the_accepted_answers():
    pairs = [
        ("The Eiffel Tower", "eiffel tower!"),
        ("Paris", "It is Paris", {"answers": ["in Paris"]}),
        ("seven", ""),
    ]
    found = values("qa", pairs)
    assert found["exact"] == 1 / 3
    assert found["f1"] == pytest.approx((1 + 2 / 4 + 0) / 3)
    with pytest.raises(ValueError, match="'i0': meta.answers is 'x'.* must be a list of texts"):
        values("qa", [("a", "b", {"answers": "x"})])


def test_a_choice_is_right_by_its_log_probability_alone():
    meta = {"choices": ["no", "yes, that is so", "maybe"]}
    pairs = [("yes, that is so", "", meta), ("no", "", meta)]
    scores = [(-3.0, -4.0, -9.0), (-1.0, -5.0, -9.0)]
    found = {m.name: estimate(m).value for m in scorer("choice")(answered(pairs, scores))}
    assert found == {"accuracy": 0.5, "accuracy_by_length": 0.5}
    with pytest.raises(ValueError, match="'i0': 0 log-probabilities for 3 choices"):
        scorer("choice")(answered(pairs))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $1,018.50 every day.", 1018.5),
        ("A: -3", -3.0),
        ("#### 18", 18.0),
        ("none", None),
        ("3.0 bolts", 3.0),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


def test_an_answer_without_a_number_is_wrong():
    assert values("number", [("#### 18", "so it is 18."), ("4", "four")]) == {"number": 0.5}


def test_checks_count_refusals_beside_what_answers_are_worth():
    says = {"check": {"name": "says", "any_of": ["Paris"]}}
    pairs = [("Paris", "It is Paris.", says), ("Paris", "I'm sorry, I cannot hear you.", says)]
    assert values("check", pairs) == {"check": 0.5, "refusals": 0.5}


def test_slots_are_counted_over_the_whole_set():
    order = '{"intent": "order", "size": "large", "roast": "dark"}'
    pairs = [(order, order), (order, '{"size": "large", "milk": "oat"}'), (order, "A coffee.")]
    assert values("slots", pairs) == {"slot_f1": pytest.approx(2 * 3 / (6 + 4)), "exact": 1 / 3}


def test_words_are_invented_where_there_are_none_to_be_heard():
    found = answered([("", ""), ("", "Thank you."), ("", "There is no speech."), ("", "you")])
    heard = [replace(prediction, audio_s=15.0) for prediction in found.predictions]
    metrics = {m.name: m for m in scorer("invented")(replace(found, predictions=heard))}
    assert estimate(metrics["invented"]).value == 0.5
    assert estimate(metrics["words_a_minute"]).value == 3.0
    assert all(metric.better == "low" for metric in metrics.values())
