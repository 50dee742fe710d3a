"""Listening: clips of a report with their players, and what each model made of them."""

import random
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path

from voicetextblender import audio
from voicetextblender.eval.asr import AsrResult, Prediction, read_predictions
from voicetextblender.eval.metrics import align
from voicetextblender.eval.results import Run
from voicetextblender.page import Html, data_url, join, section, tag
from voicetextblender.text import LANGUAGES

NUM_EXAMPLES = 12


def examples(run: Run) -> Html:
    """Let a reader listen to some clips and see what was made of them."""
    folders = {part: run.folder / "eval" / part for part in ("after", "whisper", "before")}
    heard = {
        part: {
            (name, prediction.id): prediction
            for name in run.sets
            for prediction in read_predictions(folder / f"{name}.jsonl")
        }
        for part, folder in folders.items()
    }
    drawn = drawn_by_lot(heard["after"].values(), NUM_EXAMPLES)
    if not drawn:
        return Html("")
    cards = [
        example(
            prediction,
            run.sets[prediction.source],
            audio_url(folders["after"] / prediction.audio, prediction.start, prediction.duration),
            {
                label: heard[part][key].hypothesis
                for label, part in (("ours", "after"), ("Whisper", "whisper"), ("before", "before"))
                if (key := (prediction.source, prediction.id)) in heard[part]
            },
        )
        for prediction in drawn
    ]
    return section(
        "Listen",
        "Clips drawn by lot, not by how well they came out.",
        tag(
            "p",
            tag("mark", "wrong or too much"),
            "  ",
            tag("del", "missing or misheard"),
            class_="note",
        ),
        tag("div", *cards, class_="clips"),
    )


def drawn_by_lot(predictions: Iterable[Prediction], number: int) -> list[Prediction]:
    """Draw from every set and language in turn, so that each has its place; always the same."""
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault((prediction.source, prediction.lang), []).append(prediction)
    lots = [random.Random(0).sample(group, len(group)) for group in groups.values()]
    in_turn = [p for turn in zip_longest(*lots) for p in turn if p is not None][:number]
    order = list(groups)
    return sorted(in_turn, key=lambda p: order.index((p.source, p.lang)))


def example(
    prediction: Prediction, result: AsrResult, url: str | None, heard: Mapping[str, str]
) -> Html:
    """Show one clip: player, what was said, and what each made of it."""
    player = (
        tag("audio", controls=True, preload="metadata", src=url)
        if url
        else tag("p", "The recording is not at its place any more.", class_="note")
    )
    lines = [tag("dt", "said"), tag("dd", prediction.reference, class_="strong")]
    for name, hypothesis in heard.items():
        is_marked = name != "before"  # of which all is wrong: marks would only shout
        words = differences(prediction.reference, hypothesis) if is_marked else [hypothesis]
        lines += [tag("dt", name), tag("dd", *words, class_="heard" if is_marked else "before")]
    language = LANGUAGES.get(prediction.lang, prediction.lang)
    return tag(
        "div",
        join((chips(result), " ", tag("span", language, class_="chip"))),
        player,
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


def audio_url(path: Path, start: float, duration_s: float) -> str | None:
    """Return a clip as a data URL in Opus, or None if its file is not there."""
    try:
        data = audio.opus_bytes(path, start, duration_s)
    except FileNotFoundError:
        return None
    return data_url("audio/ogg;codecs=opus", data)


def chips(result: AsrResult) -> Html:
    """Say whose voice it is, and whether the clips were in training."""
    seen = "in training" if result.seen else "held out"
    return join(
        (
            tag("span", result.speech, class_=f"chip {result.speech}"),
            " ",
            tag("span", seen, class_="chip"),
        )
    )
