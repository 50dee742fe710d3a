"""Listening: clips of a report with their players, and what each system made of them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, Text
from voicetextblender.data.records import spread
from voicetextblender.eval.metrics import align, error_rate, word_edits
from voicetextblender.eval.predict import MEASURED, predictions_file, read_predictions, seconds_of
from voicetextblender.eval.results import Run
from voicetextblender.eval.scores import Score
from voicetextblender.eval.suite import read_items, reference
from voicetextblender.page import Html, data_url, details, join, section, table, tag
from voicetextblender.text import LANGUAGES, normalise

NUM_EXAMPLES = 12
NUM_WORST = 10
NUM_ANSWERS = 10
_LONGEST_S = 30.0  # of a clip that a report carries
_LABELS = {
    "ours": "ours",
    "typed": "typed to",
    "whisper": "Whisper",
    "cascade": "cascade",
    "base": "base LLM",
    "before": "before",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """An item, and what each system made of it."""

    item: Conversation
    of: Score
    """Any row of its set."""
    answers: Mapping[str, str]

    @property
    def errors(self) -> float:
        """Errors of ours for each word of the reference."""
        said, ours = normalise(reference(self.item)), normalise(self.answers.get("ours", ""))
        return float(error_rate(word_edits([said], [ours]).sum(0))) if said else 0.0


def examples(run: Run) -> Html:
    """Let a reader listen to some clips and see what was made of them."""
    drawn = drawn_by_lot([one for one in heard(run) if "ours" in one.answers], NUM_EXAMPLES)
    return _cards(run, drawn, "Listen", "Clips drawn by lot, not by how well they came out.")


def worst(run: Run) -> Html:
    """Let a reader listen to the clips that came out worst."""
    clips = [
        one
        for one in heard(run)
        if one.of.metric == "wer" and not one.of.seen and "ours" in one.answers
    ]
    found = sorted((one for one in clips if one.errors), key=lambda one: -one.errors)[:NUM_WORST]
    return _cards(run, found, "The worst", "The clips with the most errors for each word said.")


def answers(run: Run) -> Html:
    """Show what is answered to typed items, before and after."""
    found = [
        (_asked(one.item), one.answers["base"], one.answers["ours"])
        for name, of in run.sets("none").items()
        if of.decoding not in MEASURED.values()
        for one in _of_set(run, name, of)
        if {"base", "ours"} <= one.answers.keys()
    ]
    if not found:
        return Html("")
    rows = [found[place] for place in spread(len(found), NUM_ANSWERS)]
    head = ("Typed", "Base LLM, or voice off", "Voice on")
    return details(
        "Typed questions, before and after", table(head, rows, text_columns=3, class_="prose")
    )


def heard(run: Run) -> Iterator[Heard]:
    """Yield every item with speech, with what was made of it."""
    for name, of in run.sets("real", "synthetic").items():
        yield from _of_set(run, name, of)


def drawn_by_lot(found: Sequence[Heard], number: int) -> list[Heard]:
    """Draw from every set and language in turn, so that each has its place; always the same."""
    groups: dict[tuple[str, str | None], list[Heard]] = {}
    for one in found:
        groups.setdefault((one.of.set, one.item.lang), []).append(one)
    lots = [random.Random(0).sample(group, len(group)) for group in groups.values()]
    in_turn = [one for turn in zip_longest(*lots) for one in turn if one is not None][:number]
    order = list(groups)
    return sorted(in_turn, key=lambda one: order.index((one.of.set, one.item.lang)))


def example(one: Heard) -> Html:
    """Show one item: its clips, what was asked and said, and what each system made of it."""
    players = [
        tag("audio", controls=True, preload="metadata", src=url)
        if (url := audio_url(clip))
        else tag("p", "The recording is not at its place any more.", class_="note")
        for clip in one.item.clips
    ]
    is_said = one.of.metric == "wer"
    lines = [] if is_said else [tag("dt", "asked"), tag("dd", _asked(one.item))]
    label = "said" if is_said else "wanted"
    lines += [tag("dt", label), tag("dd", reference(one.item), class_="strong")]
    for system, answer in one.answers.items():
        # Before training all is wrong, and other answers may be worded as they like.
        is_marked = is_said and system != "before"
        words = differences(reference(one.item), answer) if is_marked else [answer]
        class_ = "before" if system == "before" else "heard"
        lines += [tag("dt", _LABELS.get(system, system)), tag("dd", *words, class_=class_)]
    lang = str(one.item.lang or "language unknown")
    return tag(
        "div",
        join((chips(one.of), " ", tag("span", LANGUAGES.get(lang, lang), class_="chip"))),
        *players,
        tag("dl", *lines),
        class_="clip",
    )


def differences(reference: str, hypothesis: str) -> list[Html]:
    """Write the hypothesis with what is wrong marked, and what was missed struck out."""
    parts: list[Html] = []
    for aligned in align(reference, hypothesis):
        if aligned.is_equal:
            parts.append(join((" ".join(aligned.hypothesis), " ")))
            continue
        if aligned.reference:
            parts += [tag("del", " ".join(aligned.reference)), Html(" ")]
        if aligned.hypothesis:
            parts += [tag("mark", " ".join(aligned.hypothesis)), Html(" ")]
    return parts


def audio_url(clip: Audio) -> str | None:
    """Return a clip as a data URL in Opus, or None if its file is not there."""
    try:
        data = audio.opus_bytes(clip.audio, clip.start, min(seconds_of(clip), _LONGEST_S))
    except FileNotFoundError:
        return None
    return data_url("audio/ogg;codecs=opus", data)


def chips(of: Score) -> Html:
    """Say whose voice it is, and whether the clips were in training."""
    seen = "in training" if of.seen else "held out"
    return join(
        (tag("span", of.speech, class_=f"chip {of.speech}"), " ", tag("span", seen, class_="chip"))
    )


def _of_set(run: Run, name: str, of: Score) -> list[Heard]:
    if not (run.evaluation / "items" / f"{name}.jsonl").is_file():
        return []
    found: dict[str, dict[str, str]] = {}
    files = {system: predictions_file(run.evaluation, system, name) for system in _LABELS}
    files["before"] = predictions_file(run.evaluation / "before", "ours", name)
    for system, path in files.items():
        for prediction in read_predictions(path):
            found.setdefault(prediction.id, {})[system] = prediction.answer
    return [Heard(item, of, found.get(item.id, {})) for item in read_items(run.evaluation, name)]


def _cards(run: Run, found: Sequence[Heard], title: str, lead: str) -> Html:
    if not found:
        return Html("")
    marks = (tag("mark", "wrong or too much"), "  ", tag("del", "missing or misheard"))
    cards = [example(one) for one in found]
    return section(title, lead, tag("p", *marks, class_="note"), tag("div", *cards, class_="clips"))


def _asked(item: Conversation) -> str:
    """Return what is asked in writing, clips as what is said in them."""
    return " ".join(
        part.text if isinstance(part, Text) else f"(spoken) {part.text or '…'}"
        for turn in item.messages[:-1]
        for part in turn.parts
    )
