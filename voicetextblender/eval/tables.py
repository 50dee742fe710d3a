"""The report's tables of scores: what a model hears, understands and kept, and whom it serves.

Each takes the rows of an evaluation and knows nothing of how they came about.
"""

from collections.abc import Mapping, Sequence

from voicetextblender.eval.charts import interval_axis, interval_chart, legend
from voicetextblender.eval.listen import chips
from voicetextblender.eval.results import Run
from voicetextblender.eval.scores import Score
from voicetextblender.eval.suite import FEWEST
from voicetextblender.page import Html, details, join, section, table, tag
from voicetextblender.text import LANGUAGES

NONE = "–"
NAMES = {
    "ours": "This model",
    "whisper": "Whisper's decoder",
    "before": "Before training",
    "typed": "This model, typed to",
    "cascade": "Cascade",
    "base": "Base LLM, typed to",
}
COLOURS = {
    "ours": "var(--ours)",
    "whisper": "var(--theirs)",
    "cascade": "var(--theirs)",
    "typed": "var(--c2)",
    "base": "var(--before)",
    "before": "var(--before)",
}
_IN_COLOUR = (
    "In colour: how far this model is above (+) or below (−) the other on the same items, with the "
    "95 % interval; bold where that leaves no doubt of the direction."
)
METRICS = {
    "wer": "word error rate",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact": "exact match",
    "f1": "token F1",
    "accuracy": "accuracy",
    "accuracy_by_length": "accuracy, by length",
    "number": "right number",
    "check": "passed checks",
    "perplexity": "perplexity",
    "kl": "nats from the base LLM",
    "correct": "judged correct",
    "redundancy": "judged redundant",
    "unjudged": "not judged",
    "slot_f1": "slot F1",
    "invented": "clips with words invented",
    "words_a_minute": "words invented a minute",
}


def hearing(run: Run) -> Html:
    """Show word error rates by set and language, before and after, beside Whisper's own."""
    sets = {n: s for n, s in run.sets("real", "synthetic").items() if s.metric == "wer"}
    if not sets:
        return inventing(run)
    systems = _asked(run, sets, ("ours", "whisper", "before"))
    shown = [row for row in run.scores if row.metric == "wer" and row.system != "before"]
    highest = max((row.high for row in shown if row.by in (None, "lang")), default=1.0)
    limit = 0.5 if highest <= 0.4 else 1.0
    rows = []
    for name, of in sets.items():
        label: Html = join((tag("b", name), tag("br"), chips(of)))
        langs = _groups(run, of, "lang")
        if len(langs) != 1:
            rows.append((label, tag("b", "all"), *_rates(run, of, systems, limit)))
            label = Html("")
        for lang in langs:
            cells = _rates(run, of, systems, limit, by="lang", group=lang)
            rows.append((label, LANGUAGES.get(lang, lang), *cells))
    head = (
        *("Speech", "Language", join(("errors per 100 words", interval_axis(limit)))),
        *(NAMES[system] for system in systems),
        "Clips",
    )
    return section(
        "What it hears",
        "Word error rate, in percent: words wrong, missing or too many for each 100 words said. "
        "Lower is better.",
        legend({NAMES[system]: COLOURS[system] for system in systems if system != "before"}),
        table(head, rows, text_columns=3),
        tag(
            "p",
            "The line through a dot and the numbers under a rate are the 95 % interval: what the "
            "rate might have been with other clips like these; none is shown for fewer than "
            f"{FEWEST} clips. Whisper's decoder is the encoder's own, told the language.",
            class_="note",
        ),
        inventing(run),
    )


def inventing(run: Run) -> Html:
    """Show how often words are written down where nobody speaks."""
    sets = {n: s for n, s in run.sets("none").items() if s.metric == "invented"}
    systems = _asked(run, sets, ("ours", "whisper"))
    return _compared("Where nobody speaks", run, sets, systems) if sets else Html("")


def understanding(run: Run) -> Html:
    """Show what is answered to speech, beside the typed twin, the cascade and the base LLM."""
    sets = {n: s for n, s in run.sets("real", "synthetic").items() if s.metric != "wer"}
    if not sets:
        return Html("")
    systems = _asked(run, sets, ("ours", "typed", "cascade", "base"))
    others = {n: s for n, s in sets.items() if len(_metrics(run, s)) > 1}
    kept = tag(
        "p", "Kept of another: right answers among the items that it has right.", class_="note"
    )
    return section(
        "What it understands",
        "The same items, spoken to this model, typed to it, through the cascade (a speech "
        "recogniser, then the same LLM), and typed to the LLM that it began as.",
        legend({NAMES[system]: COLOURS[system] for system in systems}),
        _compared("Spoken to it", run, sets, systems, slice(1)),
        tag("p", _IN_COLOUR, class_="note"),
        details(
            "Other measures of the same answers",
            kept,
            _compared("Spoken to it", run, others, systems, slice(1, None)),
        )
        if others
        else "",
    )


def serving(run: Run) -> Html:
    """Show errors by group, the largest gap marked, for every field that sets were split by."""
    figures = []
    for name, of in run.sets("real", "synthetic", "none").items():
        for by in dict.fromkeys(s.by for s in run.scores if s.set == name and s.by):
            found = [
                row
                for group in _groups(run, of, by)
                if (row := run.row(of, "ours", by=by, group=group)) and row.num_items >= FEWEST
            ]
            if len(found) > 1:
                figures.append(_group_figure(of, by, found))
    if not figures:
        return Html("")
    return section(
        "Whom it serves",
        "The same model, by group. The two that are furthest apart are marked.",
        tag("div", *figures, class_="figures"),
        tag("p", f"Groups of fewer than {FEWEST} items are left out.", class_="note"),
    )


def keeping(run: Run) -> Html:
    """Show what the LLM still knows of text."""
    sets = {name: of for name, of in run.sets("none").items() if of.metric != "invented"}
    if not sets:
        return Html("")
    identical = [same for name in sets if (same := run.is_identical(name)) is not None]
    said = (
        "With the voice off, every logit on the text is that of the LLM loaded afresh, bit for bit."
        if all(identical)
        else "With the voice off, the logits are NOT the base LLM's: something is wrong."
    )
    names = {"base": "Base LLM = voice off", "ours": "Voice on"}
    return section(
        "What it kept",
        "The LLM that it began as, and the same LLM after it learned to listen.",
        legend({name: COLOURS[system] for system, name in names.items()}),
        _compared("Typed to it", run, sets, [*names], names=names),
        tag("p", said, class_="note") if identical else Html(""),
        tag("p", _IN_COLOUR, class_="note"),
        tag(
            "p",
            "Alarm: worse beyond chance and beyond what is tolerated (a perplexity 3 % up, 0.1 "
            "nats away, 2 points of anything else). Unclear: too few items to tell.",
            class_="note",
        ),
    )


def percent(fraction: float) -> str:
    """Write a fraction as percent, to one place."""
    return f"{100 * fraction:.1f}"


def shown(value: float, unit: str) -> str:
    """Write a value in its unit."""
    return percent(value) if unit == "%" else f"{value:.3g}"


def interval(score: Score) -> str:
    """Write a score's interval, or how few items it has."""
    if score.num_items < FEWEST:
        return f"of {score.num_items}"
    return f"{shown(score.low, score.unit)} – {shown(score.high, score.unit)}"


def signed(score: Score) -> tuple[str, str]:
    """Write a difference, and its interval."""
    scale, places = (100, 1) if score.unit == "%" else (1, 3)
    value, low, high = (
        f"{scale * x:+.{places}f}".replace("-", "−") for x in (score.value, score.low, score.high)
    )
    return value, f"{low} to {high}"


def _rates(
    run: Run,
    of: Score,
    systems: Sequence[str],
    limit: float,
    by: str | None = None,
    group: str | None = None,
) -> list[str]:
    """Return the cells of a row: chart, each system's rate, items."""
    scores = {s: run.row(of, s, metric=of.metric, by=by, group=group) for s in systems}
    marks = [
        (
            score.value,
            (score.low, score.high) if score.num_items >= FEWEST else (score.value, score.value),
            COLOURS[system],
        )
        for system, score in scores.items()
        if score is not None and system != "before" and score.unit == "%"
    ]
    num_items = max((score.num_items for score in scores.values() if score), default=0)
    cells: list[str] = [interval_chart(marks, limit) if marks else Html("")]
    for system, score in scores.items():
        if score is None:
            cells.append(NONE)
            continue
        notes = [tag("span", interval(score), class_="range")]
        if score.num_items != num_items and score.num_items >= FEWEST:
            notes.append(tag("span", f"of {score.num_items}", class_="range"))
        if by is None and system not in ("whisper", systems[0]):  # the later column has the gap
            other = systems[0] if system == "ours" else system
            if (gap := run.row(of, "ours", against=other)) is not None:
                notes.append(_gap(gap))
            liked = run.row(of, "ours", metric="preferred", against=other)
            if liked is not None and of.metric == "correct":
                notes += [tag("span", "preferred, net", class_="range"), _gap(liked)]
        cells.append(join((tag("b", shown(score.value, score.unit)), *notes)))
    return [*cells, str(num_items)]


def _compared(
    title: str,
    run: Run,
    sets: Mapping[str, Score],
    systems: Sequence[str],
    which: slice = slice(None),
    names: Mapping[str, str] = NAMES,
) -> Html:
    """Return a table of sets by some of their measures, each system's beside the others'."""
    rows = []
    for name, of in sets.items():
        for number, metric in enumerate(_metrics(run, of)[which]):
            whose = join((tag("br"), chips(of))) if of.speech != "none" else Html("")
            label = Html("") if number else join((tag("b", name), whose))
            rows.append((label, _measured(run, metric), *_rates(run, metric, systems, 1.0)))
    head = (title, "Measured", interval_axis(1.0), *(names[system] for system in systems), "Items")
    return table(head, rows, text_columns=3)


def _asked(run: Run, sets: Mapping[str, Score], systems: Sequence[str]) -> list[str]:
    """Return those of the systems that were asked any of the sets."""
    known = {row.system for row in run.scores if row.set in sets}
    return [system for system in systems if system in known]


def _gap(gap: Score) -> Html:
    is_worse = (gap.value > 0) == (gap.better == "low")
    is_sure = gap.low > 0 or gap.high < 0
    value, spread = signed(gap)
    lines = (tag("b", value) if is_sure else value, tag("br"), spread)
    colour = "" if not gap.value else "bad" if is_worse else "good"
    return tag("span", *lines, class_=f"range {colour}")


def _measured(run: Run, of: Score) -> Html:
    """Name a metric, with an arrow to where it is better, and what became of it since the base."""
    name = METRICS.get(of.metric, of.metric.replace("_", " "))
    words = f"{name}\N{NO-BREAK SPACE}{'↓' if of.better == 'low' else '↑'}"
    change = run.row(of, "ours", against="base") or run.row(of, "ours") or of
    if change.verdict is None:
        return join((words,))
    return join((words, " ", tag("span", change.verdict, class_=f"chip {change.verdict}")))


def _group_figure(of: Score, by: str, found: Sequence[Score]) -> Html:
    """Draw one field's groups, from the worst to the best."""
    ordered = sorted(found, key=lambda row: row.value, reverse=of.better == "low")
    worst, best = ordered[0], ordered[-1]
    limit = 1.0 if max(row.value for row in found) > 0.5 else 0.5
    names = {row.group: _group_name(by, row) for row in found}
    rows = [
        (
            tag("b", names[row.group]) if row in (worst, best) else names[row.group],
            interval_chart([(row.value, (row.low, row.high), _shade(row, worst, best))], limit),
            tag("b", shown(row.value, row.unit)) if row in (worst, best) else shown(row.value, "%"),
            str(row.num_items),
        )
        for row in ordered
    ]
    metric = METRICS.get(of.metric, of.metric)
    apart = worst.low > best.high or worst.high < best.low
    words = "their intervals do not meet" if apart else "which chance alone might explain"
    gap = shown(abs(worst.value - best.value), of.unit)
    note = f"{names[worst.group]} against {names[best.group]}: {gap} points, {words}."
    return tag(
        "figure",
        tag("figcaption", f"{of.set}: {metric} by {by}"),
        table((by, interval_axis(limit), "%", "items"), rows, text_columns=2),
        tag("p", f"Largest gap, {note}" if worst.value != best.value else "No gap.", class_="note"),
    )


def _group_name(by: str, row: Score) -> str:
    group = str(row.group)
    return LANGUAGES.get(group, group) if by in ("lang", "target_lang") else group


def _shade(row: Score, worst: Score, best: Score) -> str:
    if worst.value == best.value or row not in (worst, best):
        return "var(--before)"
    return "var(--bad)" if row is worst else "var(--good)"


def _groups(run: Run, of: Score, by: str) -> list[str]:
    """Return a set's groups of a field."""
    rows = (s for s in run.scores if s.set == of.set and s.by == by and s.metric == of.metric)
    return list(dict.fromkeys(s.group for s in rows if s.group is not None))


def _metrics(run: Run, of: Score) -> list[Score]:
    """Return a row of each of a set's metrics, the main one first."""
    rows = (s for s in run.scores if s.set == of.set and s.by is None and s.against is None)
    first: dict[str, Score] = {}
    for row in rows:
        first.setdefault(row.metric, row)
    return list(first.values())
