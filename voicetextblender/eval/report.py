"""The report: one HTML file that says what a model learned to hear and what it kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from voicetextblender.config import dump_recipe
from voicetextblender.eval.charts import colour, legend, line_chart, pair_of_bars
from voicetextblender.eval.listen import answers, chips, examples, worst
from voicetextblender.eval.results import Run, read_run, source_facts
from voicetextblender.eval.tables import (
    METRICS,
    NAMES,
    NONE,
    hearing,
    interval,
    keeping,
    percent,
    serving,
    shown,
    understanding,
)
from voicetextblender.page import Html, details, join, page, section, table, tag

_MOST_TILES = 8


def write_report(folder: Path) -> Path:
    """Write `report.html` to the folder of a run or of an evaluation, and return its path.

    Raises ValueError if the folder holds nothing to report.
    """
    found = read_run(folder)
    if not (found.log or found.scores):
        raise ValueError(
            f"{folder}: no log.jsonl and no results.json here, so there is nothing to report; "
            f"name the folder of a run that was trained or evaluated"
        )
    path = folder / "report.html"
    path.write_text(render(found), encoding="utf-8")
    return path


def render(run: Run) -> Html:
    """Return the whole report."""
    return page(
        f"{run.name}: what it hears and what it kept",
        header(run),
        tiles(run),
        hearing(run),
        understanding(run),
        serving(run),
        keeping(run),
        answers(run),
        examples(run),
        worst(run),
        learning(run),
        blend(run),
        speed(run),
        making(run),
    )


def header(run: Run) -> Html:
    """Say in a few sentences what the run came to."""
    facts = []
    if run.recipe is not None:
        facts.append(f"{run.recipe.model.llm} hears through {run.recipe.model.encoder}")
    if run.log:
        seconds = sum(line["seconds"] for line in run.log)
        facts.append(f"{run.log[-1]['step']:,} steps in {duration(seconds)}")
    return join(
        (
            tag("div", "voicetextblender · report", class_="eyebrow"),
            tag("h1", run.name),
            tag("p", " · ".join(facts), class_="lead"),
            tag("p", " ".join(verdict(run)), class_="verdict"),
        )
    )


def verdict(run: Run) -> list[str]:
    """Return the sentences that matter most, for what was measured."""
    sentences = []
    for kind in ("real", "synthetic"):
        rates = []
        for of in run.sets(kind).values():
            ours, whisper = run.row(of, "ours"), run.row(of, "whisper")
            if not of.seen and ours is not None and of.metric == "wer":
                beside = f" (Whisper's decoder {100 * whisper.value:.0f})" if whisper else ""
                rates.append(f"{100 * ours.value:.0f} on {of.set}{beside}")
        if rates:
            words = f"Errors in 100 words of {kind} speech that it never heard before"
            sentences.append(f"{words}: {', '.join(rates)}.")
    sentences += aloud(run)
    for of in run.sets("none").values():
        base, change = run.row(of, "base"), run.row(of, "ours", against="base")
        same, ours = run.is_identical(of.set), run.row(of, "ours")
        if of.metric == "invented" and ours is not None:
            sentences.append(
                f"Where nobody speaks it writes words down for {percent(ours.value)} % of "
                f"{ours.num_items} clips."
            )
        if of.metric == "perplexity" and base is not None and change is not None:
            sentence = (
                f"Its perplexity on plain text moved by {100 * change.value / base.value:+.1f} %"
            )
            if same is not None:
                sentence += (
                    f"; with the voice off it {'is' if same else 'is not'} the LLM that it began "
                    f"as, bit for bit"
                )
            sentences.append(f"{sentence}.")
    alarms = [row for row in run.scores if row.verdict == "alarm"]
    if alarms:
        names = ", ".join(dict.fromkeys(row.set for row in alarms))
        sentences.append(f"Alarm: it lost some of what the LLM could do on {names}.")
    return sentences


def aloud(run: Run) -> list[str]:
    """Say what is answered right when spoken and typed, and by the cascade, over all such sets."""
    sets = [of for of in run.sets("real", "synthetic").values() if of.metric == "check"]
    found = [[run.row(of, system) for system in ("ours", "typed", "cascade")] for of in sets]
    whole = [[row.value for row in rows if row] for rows in found if all(rows)]
    if not whole:
        return []
    means = [percent(sum(values) / len(whole)) for values in zip(*whole, strict=True)]
    return [
        f"Of {len(whole)} sets of questions and tasks it gets {means[0]} % right when they are "
        f"spoken to it and {means[1]} % when they are typed; a cascade with the same LLM gets "
        f"{means[2]} %."
    ]


def tiles(run: Run) -> Html:
    """Show the headline numbers."""
    heard, understood, kept = [], [], []
    for of in run.sets("real", "synthetic").values():
        ours = run.row(of, "ours")
        if ours is None:
            continue
        under = [METRICS.get(of.metric, of.metric), f"{interval(ours)} · {ours.num_items} items"]
        for system in ("whisper", "cascade", "before"):
            if (row := run.row(of, system)) is not None:
                on = f" on {row.num_items}" if row.num_items != ours.num_items else ""
                under.append(f"{NAMES[system]} {shown(row.value, row.unit)} {row.unit}{on}")
        label = join((of.set, tag("br"), chips(of)))
        made = tile(label, shown(ours.value, ours.unit), ours.unit, under)
        (heard if of.metric == "wer" else understood).append(made)
    for of in run.sets("none").values():
        base, change = run.row(of, "base"), run.row(of, "ours", against="base")
        if of.metric == "perplexity" and base is not None and change is not None:
            under = [f"{base.value:.2f} before, {base.value + change.value:.2f} after"]
            number = f"{100 * change.value / base.value:+.1f}"
            kept.append(tile("Perplexity of plain text, voice on", number, "%", under))
            if (same := run.is_identical(of.set)) is not None:
                under = ["its logits are the base LLM's" if same else "not the base LLM's"]
                answer = "identical" if same else "differs"
                kept.append(tile("Voice off against the base LLM, bit by bit", answer, "", under))
    shown_first = [*heard[: _MOST_TILES - len(kept)], *kept, *understood][:_MOST_TILES]
    return tag("div", *shown_first, class_="tiles")


def tile(name: str, number: str, unit: str, under: Sequence[str]) -> Html:
    """Show one number with its name above and its context below."""
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", number, " ", tag("span", unit, class_="unit"), class_="big"),
        *[tag("div", line, class_="under") for line in under],
        class_="tile",
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
    ctc = {"CTC, all clips": [(line["step"], line["ctc"]) for line in log if line["ctc"]]}
    drawn = [("Next-token loss by source", "nats per supervised token", losses, colours)]
    if any(ctc.values()):
        drawn.append(("Auxiliary CTC loss", "nats per token said", ctc, {[*ctc][0]: colour(5)}))
    figures = [
        tag(
            "figure",
            tag("figcaption", title),
            legend(fills),
            line_chart(series, fills, "optimiser steps", unit),
        )
        for title, unit, series, fills in drawn
    ]
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
    sets = {name: of for name, of in run.sets("real", "synthetic").items() if of.metric == "wer"}
    for system in ("ours", "whisper"):
        found = [row for of in sets.values() if (row := run.row(of, system)) is not None]
        if seconds := sum(row.seconds for row in found):
            label = f"{NAMES[system]}, transcribing"
            speed_ratio = sum(row.audio_s for row in found) / seconds
            rows.append((label, duration(seconds), NONE, times(speed_ratio)))
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
    made = dict.fromkeys(
        (r.set, r.system, r.model, r.decoding, r.scored_with, r.data_sha256[:12])
        for r in run.scores
        if r.by is None and r.against is None
    )
    if made:
        head = ("Set", "System", "Model", "Decoding", "Scored with", "Data, SHA-256")
        folded.append(
            details("Models, decoding, scoring, data", table(head, list(made), text_columns=6))
        )
    if run.provenance:
        rows = list(run.provenance.items())
        folded.append(details("Versions and machine", table(("", ""), rows, text_columns=2)))
    if run.recipe is not None:
        # A report is passed on: whose folder the run was in is nobody's business.
        recipe = dump_recipe(run.recipe).replace(f"{Path.cwd()}/", "")
        folded.append(details("Recipe, every default written out", tag("pre", recipe)))
    return section("How it was made", "Everything needed to make these numbers again.", *folded)


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
