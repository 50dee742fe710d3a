"""Checks: programs that decide whether an answer is right, so that nobody has to judge it.

`meta.check` of a conversation names one program with its settings, or a list of them:

    {"name": "says", "any_of": ["Paris"]}    {"name": "bullets", "least": 3, "most": 3}

Each is a pure function of an answer and gives 0.0 to 1.0; an answer is worth the least of its
checks. Where words are compared, case and punctuation do not count, and English numbers may be
written as words or as digits.
"""

import ast
import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voicetextblender.chat import Conversation, Text
from voicetextblender.text import english_forms, normalise

VERSION = 1  # raise it when any answer gets another score

_LONGEST_HONEST = 15  # words: behind more, something is told about what was not heard
# What is said instead of words where there are none, and where a model declines to answer.
_NO_SPEECH = re.compile(
    r"\b(no|any|without|not (hear|detect|contain)\w*( any)?) (\w+ )?"
    r"(speech|words?|voices?|talking|audio|one (is )?(speak|talk)\w+|sound)\b"
    r"|\bnothing (is|was|can be|to be|to)? ?(said|spoken|heard|transcribe)"
    r"|\b(silence|silent|inaudible|only noise|just noise|background noise|blank audio)\b"
)
_REFUSAL = re.compile(
    r"\b(sorry|apologi[sz]e|unfortunately|as an ai|i am an ai|language model)\b"
    r"|\b(i|we) (can not|cannot|can't|could not|couldn't|am unable|am not able|do not have)\b"
)


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """Slots of one answer, or of many: F1 is 2 right / (said + wanted)."""

    right: int
    said: int
    wanted: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where nothing was wanted and nothing said."""
        return 2 * self.right / (self.said + self.wanted) if self.said + self.wanted else 1.0


def check(reference: Conversation, answer: str) -> float:
    """Return what the answer is worth, 0.0 to 1.0, by the conversation's own checks.

    Raises ValueError for a conversation without a check, or with one that does not exist.
    """
    where, asked = f"conversation '{reference.id}'", reference.meta.get("check")
    checks = asked if isinstance(asked, list) else [asked]
    settings = [{**one} for one in checks if isinstance(one, dict) and "name" in one]
    if not checks or len(settings) < len(checks):
        raise ValueError(
            f"{where}: meta.check is {asked!r}; it must be an object with a 'name' such as "
            f'{{"name": "says", "any_of": ["Paris"]}}, or a list of such objects'
        )
    return min(_run(one, answer, where) for one in settings)


def says(answer: str, any_of: Sequence[str]) -> float:
    """One of these words or phrases is in the answer."""
    said = f" {comparable(answer)} "
    return float(any(f" {comparable(phrase)} " in said for phrase in any_of))


def says_all(answer: str, words: Sequence[str]) -> float:
    """All of these words and phrases are in the answer: the share that is."""
    return sum(says(answer, [word]) for word in words) / len(words)


def avoids(answer: str, words: Sequence[str]) -> float:
    """None of these words and phrases is in the answer, and it is not empty."""
    return float(bool(answer.strip()) and not says(answer, words))


def is_one_of(answer: str, any_of: Sequence[str]) -> float:
    """The answer is one of these and nothing else."""
    return float(comparable(answer) in map(comparable, any_of))


def number(answer: str, value: float, given: Sequence[float] = ()) -> float:
    """The first line with a number gives this one, and no other but those of the question."""
    lines = (
        {float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", _numerals(line))}
        for line in answer.splitlines()
    )
    said = next(filter(None, lines), set())
    return float(value in said and not said - {float(value), *map(float, given)})


def transcript(answer: str, text: str) -> float:
    """The answer's words are those of the text: 1 less the word error rate, at least 0."""
    import jiwer

    return max(0.0, 1.0 - jiwer.process_words(comparable(text), comparable(answer)).wer)


def slots(answer: str, wanted: dict[str, object]) -> float:
    """The answer is JSON with these keys and values: its F1."""
    return _slot_counts(wanted, answer).f1


def no_speech(answer: str) -> float:
    """The answer invents no words: it is empty, or says that there are none."""
    return float(not normalise(answer) or is_honest(answer))


def upper_case(answer: str) -> float:
    """The answer has letters, and all are capitals."""
    return float(answer.isupper())


def lower_case(answer: str) -> float:
    """The answer has letters, and none is a capital."""
    return float(answer.islower())


def length(answer: str, unit: str = "words", least: int = 0, most: int | None = None) -> float:
    """The answer has this many words, sentences, lines or paragraphs."""
    counts = {
        "words": lambda: len(answer.split()),
        "sentences": lambda: len(re.findall(r"[^.!?]*\w[^.!?]*(?:[.!?]+|$)", answer)),
        "lines": lambda: sum(bool(line.strip()) for line in answer.splitlines()),
        "paragraphs": lambda: sum(bool(p.strip()) for p in re.split(r"\n\s*\n|\*\*\*", answer)),
    }
    if unit not in counts:
        raise ValueError(f"unit is '{unit}'; it must be one of {', '.join(counts)}")
    return _within(counts[unit](), least, most)


def bullets(answer: str, least: int = 1, most: int | None = None) -> float:
    """The answer has this many lines that begin with -, * or •, and each says something."""
    count = len(re.findall(r"^[ \t]*(?:-|•|\*(?!\*))[ \t]*\w", answer, re.MULTILINE))
    return _within(count, least, most)


def frequency(answer: str, word: str, least: int = 1, most: int | None = None) -> float:
    """The answer says a word or phrase this often."""
    count = len(re.findall(rf"(?<!\w){re.escape(normalise(word))}(?!\w)", normalise(answer)))
    return _within(count, least, most)


def starts_with(answer: str, text: str) -> float:
    """The answer begins with these words."""
    return float(f"{normalise(answer)} ".startswith(f"{normalise(text)} "))


def ends_with(answer: str, text: str) -> float:
    """The answer ends with these words."""
    return float(f" {normalise(answer)}".endswith(f" {normalise(text)}"))


def quoted(answer: str) -> float:
    """The whole answer stands between double quotation marks."""
    return float(bool(re.fullmatch(r'\s*["“].+["”]\s*', answer, re.DOTALL)))


def no_comma(answer: str) -> float:
    """The answer has no comma, and is not empty."""
    return float("," not in answer and bool(answer.strip()))


def is_json(answer: str, keys: Sequence[str] = ()) -> float:
    """The whole answer, within a code fence or without, is a JSON object with these keys."""
    try:
        value = json.loads(_unfenced(answer))
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(value, dict) and set(keys) <= value.keys())


def python(answer: str, defines: str, num_arguments: int | None = None) -> float:
    """The answer has a Python function of this name that parses; it is never run."""
    fenced = re.search(r"```\w*\n(.*?)(?:```|$)", answer, re.DOTALL)
    code = fenced[1] if fenced else answer[max(0, answer.find("def ")) :]
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.lower() == defines.lower()
    ]
    return float(any(num_arguments in (None, len(node.args.args)) for node in found))


_ALL = (
    *(says, says_all, avoids, is_one_of, number, transcript, slots, no_speech, upper_case),
    *(lower_case, length, bullets, frequency, starts_with, ends_with, quoted, no_comma),
    *(is_json, python),
)
CHECKS: dict[str, Callable[..., float]] = {function.__name__: function for function in _ALL}


def slot_counts(reference: Conversation, answer: str) -> SlotCounts:
    """Compare an answer with the reference's JSON object, slot by slot; `intent` is no slot.

    The first JSON object in the answer counts; one that has none has lost every slot. Raises
    ValueError if the reference is no JSON object.
    """
    text = "".join(p.text for p in reference.messages[-1].parts if isinstance(p, Text))
    wanted = _first_object(text)
    if wanted is None:
        raise ValueError(
            f"conversation '{reference.id}': the reference {text[:60]!r} is no JSON object; "
            f'slots are compared with one such as {{"size": "large"}}'
        )
    return _slot_counts(wanted, answer)


def invented_words(answer: str) -> int:
    """Count the words of an answer to a clip in which nobody speaks; an honest one has none."""
    return 0 if is_honest(answer) else len(normalise(answer).split())


def is_honest(answer: str) -> bool:
    """Return whether an answer says, and says no more than, that there is nothing to be heard."""
    words = normalise(answer)
    return len(words.split()) <= _LONGEST_HONEST and bool(_NO_SPEECH.search(words))


def is_refusal(answer: str) -> bool:
    """Return whether an answer declines to answer."""
    return bool(_REFUSAL.search(normalise(answer)))


def comparable(text: str) -> str:
    """Return words in the form in which they are compared; numbers become digits."""
    return normalise(_numerals(text))


def _run(settings: dict[str, object], answer: str, where: str) -> float:
    name = settings.pop("name")
    if not isinstance(name, str) or name not in CHECKS:
        raise ValueError(f"{where}: check {name!r} is unknown; use one of {', '.join(CHECKS)}")
    try:
        inspect.signature(CHECKS[name]).bind(answer, **settings)
    except TypeError as error:
        takes = list(inspect.signature(CHECKS[name]).parameters)[1:]
        raise ValueError(
            f"{where}: check '{name}': {error}; it takes {', '.join(takes) or 'nothing'}"
        ) from None
    return CHECKS[name](answer, **settings)


def _slot_counts(wanted: dict[str, object], answer: str) -> SlotCounts:
    ours, theirs = (
        {normalise(key): comparable(str(value)) for key, value in slots.items() if key != "intent"}
        for slots in (_first_object(answer) or {}, wanted)
    )
    right = sum(ours.get(key) == value for key, value in theirs.items())
    return SlotCounts(right, len(ours), len(theirs))


def _first_object(text: str) -> dict[str, object] | None:
    """Return the first JSON object in a text."""
    for opening in re.finditer(r"\{", text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text[opening.start() :])
        except (ValueError, RecursionError):
            continue
        return value
    return None


def _within(count: int, least: int, most: int | None) -> float:
    return float(least <= count and (most is None or count <= most))


def _unfenced(answer: str) -> str:
    fenced = re.fullmatch(r"```\w*\n(.*?)\n?```", answer.strip(), re.DOTALL)
    return fenced[1] if fenced else answer


def _numerals(text: str) -> str:
    """Return an English text with its numbers in digits: `twenty-three` is 23.

    Phrase by phrase, or `two, three` would be 23 too; without brackets, whose content is lost.
    """
    text = text.translate(str.maketrans("-–’()[]<>", "  '      "))
    digits = " ".join(map(english_forms(), re.split(r"[,;:.!?]+\s|\n", text)))
    return re.sub(r"\bone\b", "1", digits)  # alone the library leaves it a word
