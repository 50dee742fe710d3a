"""The report: one HTML file that says what a run learned to hear and what it kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from voicetextblender.config import dump_recipe
from voicetextblender.eval.asr import Score
from voicetextblender.eval.charts import (
    colour,
    interval_axis,
    interval_chart,
    legend,
    line_chart,
    pair_of_bars,
)
from voicetextblender.eval.listen import chips, examples
from voicetextblender.eval.old_retention import Retention
from voicetextblender.eval.results import Run, read_run, source_facts
from voicetextblender.page import Html, details, join, page, section, table, tag
from voicetextblender.text import LANGUAGES

FEWEST = 5
"""Clips below which no interval is shown: so few hardly differ from one drawing to the next."""
NONE = "–"
OURS, WHISPER, BEFORE = "this model", "Whisper's decoder", "before training"
COLOURS = {OURS: "var(--ours)", WHISPER: "var(--theirs)", BEFORE: "var(--before)"}


def write_report(run: Path) -> Path:
    """Write `run/report.html` from the files of the run, and return its path.

    Raises ValueError if the folder holds nothing to report.
    """
    found = read_run(run)
    if not (found.log or found.sets or found.retention):
        raise ValueError(
            f"{run}: no log.jsonl and no eval/*.json here, so there is nothing to report; "
            f"name the folder of a run that was trained or evaluated"
        )
    path = run / "report.html"
    path.write_text(render(found), encoding="utf-8")
    return path


def render(run: Run) -> Html:
    """Return the whole report."""
    name = run.folder.resolve().name
    return page(
        f"{name}: what it hears and what it kept",
        header(name, run),
        tiles(run),
        hearing(run),
        examples(run),
        keeping(run.retention),
        learning(run),
        blend(run),
        speed(run),
        making(run),
    )


def header(name: str, run: Run) -> Html:
    """Say in three sentences what the run came to."""
    facts = []
    if run.recipe is not None:
        facts.append(f"{run.recipe.model.llm} hears through {run.recipe.model.encoder}")
    if run.log:
        seconds = sum(line["seconds"] for line in run.log)
        facts.append(f"{run.log[-1]['step']:,} steps in {duration(seconds)}")
    return join(
        (
            tag("div", "voicetextblender · report of a run", class_="eyebrow"),
            tag("h1", name),
            tag("p", " · ".join(facts), class_="lead"),
            tag("p", " ".join(verdict(run)), class_="verdict"),
        )
    )


def verdict(run: Run) -> list[str]:
    """Return the sentences that matter most, for what was measured."""
    sentences = []
    for name, result in run.sets.items():
        if result.seen or name not in run.after:
            continue
        low, high = run.after[name].overall.interval
        sentence = (
            f"{result.speech.capitalize()} speech that it never heard before: "
            f"{100 * run.after[name].overall.wer:.0f} errors per 100 words "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f})"
        )
        if name in run.whisper:
            sentence += f"; Whisper's own decoder makes {100 * run.whisper[name].overall.wer:.0f}"
        sentences.append(sentence + ".")
    if run.retention is not None:
        change = run.retention.ours_perplexity / run.retention.base_perplexity - 1
        is_same = "is" if run.retention.is_identical else "is not"
        sentences.append(
            f"Its perplexity on plain text moved by {100 * change:+.1f} %; with the voice off it "
            f"{is_same} the LLM that it began as, bit for bit."
        )
    return sentences


def tiles(run: Run) -> Html:
    """Show the headline numbers."""
    shown = []
    for name, result in run.sets.items():
        if name not in run.after:
            continue
        score = run.after[name].overall
        under = [f"{interval(score)} · {score.num_clips} clips"]
        if name in run.whisper:
            under.append(f"Whisper {percent(run.whisper[name].overall.wer)} %")
        if name in run.before:
            before = run.before[name].overall
            on = f" on {before.num_clips}" if before.num_clips != score.num_clips else ""
            under.append(f"before {percent(before.wer)} %{on}")
        label = join((tag("span", name), " ", chips(result)))
        shown.append(tile(label, percent(score.wer), "% WER", under))
    if (kept := run.retention) is not None:
        change = 100 * (kept.ours_perplexity / kept.base_perplexity - 1)
        under = [f"{kept.base_perplexity:.2f} before, {kept.ours_perplexity:.2f} after"]
        shown.append(tile("Perplexity of plain text, voice on", f"{change:+.1f}", "%", under))
        under = ["its logits are the base LLM's" if kept.is_identical else "not the base LLM's"]
        answer = "identical" if kept.is_identical else "differs"
        shown.append(tile("Voice off against the base LLM, bit by bit", answer, "", under))
    return tag("div", *shown, class_="tiles")


def tile(name: str, number: str, unit: str, under: Sequence[str]) -> Html:
    """Show one number with its name above and its context below."""
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", number, " ", tag("span", unit, class_="unit"), class_="big"),
        *[tag("div", line, class_="under") for line in under],
        class_="tile",
    )


def hearing(run: Run) -> Html:
    """Show word error rates by set and language, before and after, beside Whisper's own."""
    if not run.sets:
        return Html("")
    parts = {OURS: run.after, WHISPER: run.whisper, BEFORE: run.before}
    highest = max(
        (r.overall.interval[1] for p in (OURS, WHISPER) for r in parts[p].values()), default=1.0
    )
    limit = 0.5 if highest <= 0.4 else 1.0
    rows = []
    for name, result in run.sets.items():
        label: Html = join((tag("b", name), " ", chips(result)))
        by_part = {part: results.get(name) for part, results in parts.items()}
        if len(result.by_lang) > 1:
            whole = {part: found and found.overall for part, found in by_part.items()}
            rows.append((label, tag("b", "all"), *rates(whole, limit)))
            label = Html("")
        for lang in result.by_lang:
            of_lang = {part: found and found.by_lang.get(lang) for part, found in by_part.items()}
            rows.append((label, LANGUAGES.get(lang, lang), *rates(of_lang, limit)))
    keys = {name: COLOURS[name] for name in (OURS, WHISPER)}
    changed = [
        name
        for name in run.sets
        if len({of[name].data_sha256 for of in parts.values() if name in of}) > 1
    ]
    warning = (
        f"The data of {', '.join(changed)} changed between these measurements, so they must not "
        f"be compared; evaluate again."
    )
    head = (
        *("Speech", "Language", join(("errors per 100 words", interval_axis(limit)))),
        *("This model", "Whisper", "Before", "Clips"),
    )
    return section(
        "What it hears",
        "Word error rate, in percent: words wrong, missing or too many for each 100 words said. "
        "Lower is better.",
        legend(keys),
        table(head, rows, text_columns=3),
        tag("p", warning, class_="warning") if changed else Html(""),
        tag(
            "p",
            "The line through a dot and the numbers under a rate are the 95 % interval: what the "
            "rate might have been with other clips like these; none is shown for fewer than "
            f"{FEWEST} clips. “Whisper” is the encoder's own "
            "decoder, told the language. Case and punctuation are not compared; digits and number "
            "words are not the same.",
            class_="note",
        ),
    )


def rates(scores: Mapping[str, Score | None], limit: float) -> list[str]:
    """Return the cells of a row of scores: chart, this model, Whisper, before, clips."""
    marks = [
        (score.wer, score.interval if is_enough(score) else (score.wer, score.wer), COLOURS[part])
        for part, score in scores.items()
        if score is not None and part != BEFORE
    ]
    num_clips = max(score.num_clips for score in scores.values() if score is not None)
    cells = [interval_chart(marks, limit)]
    for score in scores.values():
        if score is None:
            cells.append(Html(NONE))
            continue
        notes = [interval(score)]
        if is_enough(score) and score.num_clips != num_clips:
            notes.append(f"{score.num_clips} clips")
        ranges = [tag("span", note, class_="range") for note in notes]
        cells.append(join((tag("b", percent(score.wer)), *ranges)))
    return [*cells, str(num_clips)]


def keeping(kept: Retention | None) -> Html:
    """Show what the LLM still knows of text."""
    if kept is None:
        return Html("")
    rows = [
        (
            join((tag("b", name), " ", note)),
            f"{value:.3f}",
            f"{100 * (value / kept.base_perplexity - 1):+.2f} %" if value_is_ours else NONE,
        )
        for name, note, value, value_is_ours in (
            (kept.llm, "as it was before", kept.base_perplexity, False),
            ("Voice off", "low-rank updates switched off", kept.voice_off_perplexity, True),
            ("Voice on", "as it listens", kept.ours_perplexity, True),
        )
    ]
    identical = (
        "With the voice off, every logit is the base LLM's, bit for bit."
        if kept.is_identical
        else "With the voice off, the logits are NOT the base LLM's: something is wrong."
    )
    num_same = sum(answer.base == answer.ours for answer in kept.answers)
    return section(
        "What it kept",
        f"Perplexity on a fixed text of {kept.num_tokens:,} scored tokens; lower is better.",
        table(("Model", "Perplexity", "Change"), rows),
        tag("p", identical, class_="note"),
        tag("h3", "Typed questions, before and after", style="margin-top:24px"),
        table(
            ("Question", "Before", "After"),
            [(answer.prompt, answer.base, answer.ours) for answer in kept.answers],
            text_columns=3,
            class_="prose",
        ),
        tag(
            "p",
            f"{num_same} of {len(kept.answers)} answers are the same letter for letter. "
            f"{kept.made}.",
            class_="note",
        ),
    )


def colours_of(run: Run) -> dict[str, str]:
    """Return the colour of each source, in the order of the blend."""
    logged = sorted({name for line in run.log for name in line["loss_by_source"]})
    blended = [source.name for source in run.recipe.blend] if run.recipe else []
    names = dict.fromkeys([*blended, *logged])
    return {name: colour(number) for number, name in enumerate(names)}


def learning(run: Run) -> Html:
    """Draw the losses over the steps."""
    log, colours = run.log, colours_of(run)
    if not log:
        return Html("")
    losses = {
        name: [(x["step"], x["loss_by_source"][name]) for x in log if name in x["loss_by_source"]]
        for name in colours
    }
    figures = [
        tag(
            "figure",
            tag("figcaption", "Next-token loss by source"),
            legend(colours),
            line_chart(losses, colours, "optimiser steps", "nats per supervised token"),
        )
    ]
    if any(line["ctc"] for line in log):
        ctc, stroke = "CTC, all clips", {"CTC, all clips": colour(5)}
        figures.append(
            tag(
                "figure",
                tag("figcaption", "Auxiliary CTC loss"),
                legend(stroke),
                line_chart(
                    {ctc: [(line["step"], line["ctc"]) for line in log]},
                    stroke,
                    "optimiser steps",
                    "nats per token said",
                ),
            )
        )
    return section(
        "How it learned",
        "Loss on the training data, each point the mean since the last.",
        tag("div", *figures, class_="figures"),
    )


def blend(run: Run) -> Html:
    """Show the blend as planned and as it came out."""
    if run.recipe is None or not run.log:
        return Html("")
    facts, colours = source_facts(run.recipe, run.log), colours_of(run)
    limit = max(max(f.planned, f.realised) for f in facts)
    all_tokens = max(1, sum(f.tokens for f in facts))
    rows = [
        (
            tag("b", f.name),
            pair_of_bars(f.planned, f.realised, limit, colours[f.name]),
            f"{100 * f.planned:.1f} %",
            f"{100 * f.realised:.1f} %",
            f"{f.drawn:,}",
            NONE if f.epochs is None else f"{f.epochs:.2f}",
            f"{f.tokens:,}",
            f"{100 * f.tokens / all_tokens:.1f} %",
            NONE if f.hours is None else f"{f.hours:.2f}",
        )
        for f in facts
    ]
    head = (
        *("Source", "", "Planned", "Realised", "Conversations", "Epochs"),
        *("Supervised tokens", "of all tokens", "Hours of speech"),
    )
    return section(
        "What went into it",
        "The blend is a plan, then a fact: the outline is the planned share of conversations, the "
        "bar what was drawn.",
        table(head, rows, text_columns=2),
        tag("p", "Hours count a clip each time it was heard.", class_="note"),
    )


def speed(run: Run) -> Html:
    """Show how fast it trained and how fast it listens."""
    rows = []
    if run.log:
        seconds = sum(line["seconds"] for line in run.log)
        tokens = sum(line["tokens_per_s"] * line["seconds"] for line in run.log) / seconds
        heard = sum(line["audio_s_per_s"] * line["seconds"] for line in run.log) / seconds
        rows.append(("Training", duration(seconds), f"{tokens:,.0f} positions/s", times(heard)))
    for name, results in ((OURS, run.after), (WHISPER, run.whisper)):
        seconds = sum(result.seconds for result in results.values())
        audio_s = sum(result.overall.audio_s for result in results.values())
        if seconds:
            label = f"Transcribing, {name}"
            rows.append((label, duration(seconds), NONE, times(audio_s / seconds)))
    if not rows:
        return Html("")
    return section(
        "How fast",
        f"Measured in this run on {machine(run.provenance)}.",
        table(("", "Time", "Tokens and audio positions", "Speech, times real time"), rows),
    )


def making(run: Run) -> Html:
    """Say, folded away, how every number was made."""
    folded = []
    results = [
        (part, name, result)
        for part, of in ((OURS, run.after), (WHISPER, run.whisper), (BEFORE, run.before))
        for name, result in of.items()
    ]
    if results:
        rows = [
            (part, name, r.model, r.decoding, r.scoring, r.data_sha256[:12])
            for part, name, r in results
        ]
        head = ("Measured", "Set", "Model", "Decoding", "Scoring", "Data, SHA-256")
        folded.append(details("Models, decoding, scoring", table(head, rows, text_columns=6)))
    if run.retention is not None:
        rows = [("Perplexity and answers", run.retention.made, run.retention.text_sha256[:12])]
        head = ("Measured", "How", "Text, SHA-256")
        folded.append(details("Text", table(head, rows, text_columns=3)))
    if run.provenance:
        rows = list(run.provenance.items())
        folded.append(details("Versions and machine", table(("", ""), rows, text_columns=2)))
    if run.recipe is not None:
        # A report is passed on: whose folder the run was in is nobody's business.
        recipe = dump_recipe(run.recipe).replace(f"{Path.cwd()}/", "")
        folded.append(details("Recipe, every default written out", tag("pre", recipe)))
    return section("How it was made", "Everything needed to make these numbers again.", *folded)


def percent(fraction: float) -> str:
    """Write a fraction as percent, to one place."""
    return f"{100 * fraction:.1f}"


def is_enough(score: Score) -> bool:
    """Whether there are clips enough for an interval to mean something."""
    return score.num_clips >= FEWEST


def interval(score: Score) -> str:
    """Write a score's interval as percent."""
    if not is_enough(score):
        return f"of {score.num_clips} clip{'s'[: score.num_clips - 1]}"
    low, high = score.interval
    return f"{percent(low)} – {percent(high)}"


def times(speed_ratio: float) -> str:
    """Write a speed as a multiple of real time."""
    return f"{speed_ratio:.1f} ×"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def machine(provenance: Mapping[str, str]) -> str:
    """Name the machine that a model was trained on."""
    if "device" not in provenance:
        return "the machine that ran it"
    return f"{provenance['device']} ({provenance['machine']}, {provenance['threads']} threads)"
