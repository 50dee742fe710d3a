"""Scorers: from the answers to a set's items to its metrics, by the name that the set gives.

A scorer is a function of items and answers. None needs the model; a judge's verdicts are kept, so
that scoring again asks nobody.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from voicetextblender.chat import Conversation
from voicetextblender.eval.checks import VERSION as CHECKS_VERSION
from voicetextblender.eval.checks import check, invented_words, is_refusal, slot_counts
from voicetextblender.eval.metrics import Metric, character_edits, error_rate, mean, word_edits
from voicetextblender.eval.normalisers import merge_compounds, normalised_with, normaliser
from voicetextblender.eval.predict import Prediction, choices
from voicetextblender.eval.suite import asked_in_writing, reference
from voicetextblender.text import normalise

QA_VERSION = 1  # raise these when a scorer gives any answer another score
NUMBER_VERSION = 1


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system made of a set: all that a scorer sees."""

    items: Sequence[Conversation]
    predictions: Sequence[Prediction]
    """In the order of the items."""
    normaliser: str = "basic"
    merge_compounds: bool = False
    judge: str | None = None
    """Who judges open answers."""
    cache: Path | None = None
    """Folder in which a judge's verdicts are kept."""

    @property
    def references(self) -> list[str]:
        return [reference(item) for item in self.items]

    @property
    def hypotheses(self) -> list[str]:
        return [prediction.answer for prediction in self.predictions]

    @property
    def pairs(self) -> list[tuple[Conversation, str]]:
        return list(zip(self.items, self.hypotheses, strict=True))


Scorer = Callable[[Answers], list[Metric]]


def score_words(answers: Answers) -> list[Metric]:
    """Return word and character error rate, and the three kinds of word errors.

    Raises ValueError for a reference that has no words; an empty hypothesis has lost them all.
    """
    normalised = normaliser(answers.normaliser)
    pairs = []
    for item, hypothesis in zip(answers.items, answers.hypotheses, strict=True):
        words = normalised(reference(item)).strip()
        if not words:
            raise ValueError(
                f"conversation '{item.id}': the reference {reference(item)!r} has no words, so "
                f"there is no error rate; correct it or leave it out"
            )
        pair = words, normalised(hypothesis).strip()
        pairs.append(merge_compounds(*pair) if answers.merge_compounds else pair)
    references, hypotheses = [list(side) for side in zip(*pairs, strict=True)]
    words, characters = word_edits(references, hypotheses), character_edits(references, hypotheses)
    made = (
        f"{normalised_with(answers.normaliser, answers.merge_compounds)}, jiwer {version('jiwer')}"
    )
    rates = [("wer", words), ("cer", characters)]
    kinds = enumerate(("substitutions", "deletions", "insertions"))
    return [
        *(Metric(name, edits, error_rate, made, "low") for name, edits in rates),
        *(Metric(kind, words[:, [place, 3]], mean, made, "low") for place, kind in kinds),
    ]


def score_translation(answers: Answers) -> list[Metric]:
    """Return BLEU and chrF as sacrebleu computes them, with its signatures.

    Raises ValueError if sacrebleu is not there.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise ValueError(
            "BLEU and chrF come with the extra 'eval': pip install 'voicetextblender[eval]'"
        ) from None
    languages = {str(item.meta.get("target_lang") or item.lang) for item in answers.items}
    language = languages.pop() if len(languages) == 1 else ""
    tokenize = {"zh": "zh", "ja": "char", "ko": "char", "th": "char"}.get(language, "13a")
    metrics = []
    for name, metric in (("bleu", BLEU(tokenize=tokenize)), ("chrf", CHRF())):
        metric.corpus_score(["a"], [["a"]])  # only then does its signature know the references
        rows = metric._extract_corpus_statistics(answers.hypotheses, [answers.references])

        def value(sums: np.ndarray, of: BLEU | CHRF = metric) -> np.ndarray:
            def score(row: np.ndarray) -> float:
                return of._compute_score_from_stats(row.tolist()).score / 100

            return np.apply_along_axis(score, -1, sums)

        signature = str(metric.get_signature())
        metrics.append(Metric(name, np.array(rows, float), value, f"sacrebleu {signature}"))
    return metrics


def score_qa(answers: Answers) -> list[Metric]:
    """Return exact match and token F1, the best over the reference and `meta.answers`."""
    exact, f1 = [], []
    for item, hypothesis in zip(answers.items, answers.hypotheses, strict=True):
        accepted = [reference(item), *_texts(item, "answers")]
        said = _qa_words(hypothesis)
        exact.append(max(said == _qa_words(text) for text in accepted))
        f1.append(max(_f1(said, _qa_words(text)) for text in accepted))
    made = f"qa-{QA_VERSION}: basic, without articles"
    return [points("exact", exact, made), points("f1", f1, made)]


def score_choice(answers: Answers) -> list[Metric]:
    """Return how often the likeliest choice is the reference, as it is and by its length.

    Raises ValueError for a prediction without log-probabilities, or a reference that is no choice.
    """
    right, right_by_length = [], []
    for item, prediction in zip(answers.items, answers.predictions, strict=True):
        options, scores = choices(item), np.array(prediction.scores)
        if len(scores) != len(options) or reference(item) not in options:
            raise ValueError(
                f"conversation '{item.id}': {len(scores)} log-probabilities for {len(options)} "
                f"choices, of which the reference {reference(item)[:40]!r} must be one; "
                f"run vtb eval again"
            )
        target = options.index(reference(item))
        right.append(int(scores.argmax()) == target)
        by_length = scores / [len(option.encode()) for option in options]
        right_by_length.append(int(by_length.argmax()) == target)
    made = "log-probability of the choices"
    return [
        points("accuracy", right, made),
        points("accuracy_by_length", right_by_length, f"{made} per byte"),
    ]


def score_number(answers: Answers) -> list[Metric]:
    """Return how often the last number of the answer is the last of the reference (GSM8K)."""
    right = [
        (said := last_number(hypothesis)) is not None and said == last_number(of)
        for of, hypothesis in zip(answers.references, answers.hypotheses, strict=True)
    ]
    return [points("number", right, f"number-{NUMBER_VERSION}: the last number of the answer")]


def score_checks(answers: Answers) -> list[Metric]:
    """Return what the answers are worth by their items' `meta.check`, and how many decline."""
    worth = [check(item, said) for item, said in answers.pairs]
    refused = [is_refusal(said) for said in answers.hypotheses]
    made = f"checks-{CHECKS_VERSION}"
    return [points("check", worth, made), points("refusals", refused, made, "low")]


def score_slots(answers: Answers) -> list[Metric]:
    """Return F1 over the slots of all answers together, and how often a whole object is right."""
    counts = [slot_counts(item, said) for item, said in answers.pairs]
    sums = np.array([(2 * c.right, c.said + c.wanted) for c in counts], float)
    made = f"checks-{CHECKS_VERSION}: first JSON object of the answer, without intent"
    exact = [c.right == c.said == c.wanted for c in counts]
    return [Metric("slot_f1", sums, mean, made), points("exact", exact, made)]


def score_invented(answers: Answers) -> list[Metric]:
    """Return how often words are written down where nobody speaks, and how many a minute."""
    words = [invented_words(said) for said in answers.hypotheses]
    minutes = [prediction.audio_s / 60 for prediction in answers.predictions]
    made = f"checks-{CHECKS_VERSION}: any word but an honest 'no speech'"
    a_minute = Metric("words_a_minute", np.array([words, minutes]).T, mean, made, "low", "")
    return [points("invented", [count > 0 for count in words], made, "low"), a_minute]


def score_judged(answers: Answers) -> list[Metric]:
    """Return correctness and redundancy as a judge sees them, and how many it said nothing of.

    Answers that it said nothing of count for neither. Raises ValueError without a judge.
    """
    from voicetextblender.eval.judge import Case, verdicts

    judge, made = _judge_of(answers)
    cases = [Case(asked_in_writing(i), reference(i), said) for i, said in answers.pairs]
    found = verdicts(judge, cases, answers.cache)
    correct = np.array([(one.correct, 1.0) if one else (0.0, 0.0) for one in found])
    redundancy = np.array([(one.redundancy, 1.0) if one else (0.0, 0.0) for one in found])
    return [
        Metric("correct", correct, mean, made),
        Metric("redundancy", redundancy, mean, made, "low", ""),
        points("unjudged", [one is None for one in found], made, "low"),
    ]


def compare(ours: Answers, theirs: Answers) -> list[Metric]:
    """Return how much more often a judge prefers ours than theirs, and how often neither.

    Raises ValueError without a judge.
    """
    from voicetextblender.eval.judge import Case, preferences

    judge, made = _judge_of(ours)
    cases = [
        Case(asked_in_writing(item), reference(item), said, other)
        for (item, said), other in zip(ours.pairs, theirs.hypotheses, strict=True)
    ]
    found = preferences(judge, cases, ours.cache)
    preferred = np.array([(0.0, 0.0) if one is None else (one, 1.0) for one in found])
    neither = np.array([(0.0, 0.0) if one is None else (one == 0, 1.0) for one in found])
    made += ", each order once"
    return [Metric("preferred", preferred, mean, made), Metric("neither", neither, mean, made)]


def _judge_of(answers: Answers) -> tuple[str, str]:
    """Return the judge's name, and how scores say who judged."""
    from voicetextblender.eval.judge import DIGEST

    if answers.judge is None:
        raise ValueError(
            "the scorer 'judge' needs a judge; name one in the suite, such as "
            "judge: http://localhost:8000/v1#MODEL"
        )
    return answers.judge, f"judge {answers.judge}, prompt {DIGEST}"


def score_perplexity(answers: Answers) -> list[Metric]:
    """Return the perplexity of the items' texts, from the sums that a model gave."""
    made = "nats a token, every passage by itself"
    return [Metric("perplexity", _sums(answers), _exp_mean, made, "low", "")]


def score_kl(answers: Answers) -> list[Metric]:
    """Return the mean divergence from the base LLM at each token of the reference answers."""
    return [Metric("kl", _sums(answers), mean, "KL(base ‖ ours), nats a token", "low", "")]


SCORERS: dict[str, Scorer] = {
    "wer": score_words,
    "translation": score_translation,
    "qa": score_qa,
    "choice": score_choice,
    "number": score_number,
    "check": score_checks,
    "slots": score_slots,
    "invented": score_invented,
    "judge": score_judged,
    "perplexity": score_perplexity,
    "kl": score_kl,
}


def scorer(name: str) -> Scorer:
    """Return a scorer by name. Raises ValueError for one that is not known."""
    if name not in SCORERS:
        raise ValueError(f"'{name}' is no scorer; use one of {', '.join(SCORERS)}")
    return SCORERS[name]


def points(
    name: str, worth: Sequence[float], made: str, better: Literal["high", "low"] = "high"
) -> Metric:
    """Return the metric that is the mean of what each item is worth, 0 to 1."""
    sums = np.array([(float(point), 1.0) for point in worth]).reshape(-1, 2)
    return Metric(name, sums, mean, made, better)


def last_number(text: str) -> float | None:
    """Return the last number of a text, its thousands written with commas or not."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+", text)
    return float(found[-1].replace(",", "")) if found else None


def _sums(answers: Answers) -> np.ndarray:
    """Return (I, 2) sums as a model gave them. Raises ValueError if it gave none."""
    for prediction in answers.predictions:
        if len(prediction.scores) != 2:
            raise ValueError(
                f"prediction '{prediction.id}' has {len(prediction.scores)} sums; this scorer "
                f"needs nats and tokens, so run vtb eval again"
            )
    return np.array([prediction.scores for prediction in answers.predictions])


def _exp_mean(sums: np.ndarray) -> np.ndarray:
    return np.exp(mean(sums))


def _qa_words(text: str) -> list[str]:
    return [word for word in normalise(text).split() if word not in ("a", "an", "the")]


def _f1(said: list[str], wanted: list[str]) -> float:
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if said or wanted else 1.0


def _texts(item: Conversation, field: str) -> list[str]:
    found = item.meta.get(field, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(
            f"conversation '{item.id}': meta.{field} is {found!r:.60}; it must be a list of texts"
        )
    return found
