"""Data cards: what the data says of itself, in the Hugging Face format.

Nothing is guessed: what conversations do not state is called unstated.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import yaml

from voicetextblender.data.inspect import UNSTATED, Inspection, Share, inspect
from voicetextblender.data.records import Records
from voicetextblender.text import LANGUAGES

# Task of a conversation → task category of the Hub; any other task is "other".
_CATEGORIES = {
    "asr": "automatic-speech-recognition",
    "ast": "translation",
    "sqa": "question-answering",
    "mixed": "audio-text-to-text",
    "text": "text-generation",
}
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
# The Hub's names of licences that speech and text usually have; they are in lower case.
_LICENCES = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|pddl|odc-by|odbl|bsd-[23]-clause|gpl-[23]\.0|cdla-[a-z0-9.-]+"
    r"|cc-by(-nc)?(-sa|-nd)?-[1-4]\.[05]"
)


def write_card(
    paths: Sequence[str],
    out: Path,
    name: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Inspect the conversations and write their card; `name` is by default that of its folder.

    A `report.json` beside the data is quoted as how it was made. Raises ValueError for a path
    without conversations, a line that is none, a report that is no JSON, or a card that is there.
    """
    if out.exists():
        raise ValueError(
            f"{out}: is there already, and may hold what somebody wrote; "
            f"name another file, or move it away"
        )
    found = inspect(paths, progress=progress)
    title = name or out.absolute().parent.name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(card(found, title, _reports(paths)), encoding="utf-8")


def card(found: Inspection, name: str, reports: Sequence[tuple[Path, object]] = ()) -> str:
    """Return the card; `reports` are how the data was made, each with its file."""
    whole = found.whole
    spoken = {speech: share for (speech,), share in found.by("speech").items()}
    sections = [
        f"# {_plain(name)}",
        f"{whole.conversations:,} conversations with {whole.clips:,} clips, {_hours(whole)} hours "
        f"of speech: {_hours(spoken.get('real'))} real, {_hours(spoken.get('synthetic'))} "
        f"synthetic, {_hours(spoken.get(UNSTATED))} unstated.",
        "## Provenance",
        _shares(found, "source", "speech"),
        "## Licences",
        _shares(found, "licence", "speech"),
        "## Real and synthetic speech",
        "Speech is synthetic if a conversation says so or names a voice, and real if it denies it "
        "or names a speaker. Every table of hours tells them apart; a clip that several "
        "conversations use counts each time.",
        _shares(found, "speech"),
        "## Speakers and voices",
        _shares(found, "voice", "speech"),
        "## Hours by language and task",
        _shares(found, "language", "task", "speech"),
        "## Lengths",
        _lengths(found),
        "## How it was made",
        *_made(reports),
        "## Checks",
        _table(
            ("check", "conversations that failed it"),
            [(check, f"{len(ids):,}") for check, ids in found.failed.items()],
        ),
        "## Format",
        "One conversation a line, as JSON: `id`, `task`, `lang`, `messages` in the form of chat "
        "completions with `audio` parts whose paths are relative to the file, and `meta`. A clip's "
        "`text` is what is said in it; a model is not shown it.",
    ]
    return _front_matter(found, name) + "\n" + "\n\n".join(sections) + "\n"


def _front_matter(found: Inspection, name: str) -> str:
    whole = found.whole
    languages = [language for (language,) in found.by("language") if language != UNSTATED]
    licences = {_licence(licence) for (licence,) in found.by("licence")}
    tasks = {_CATEGORIES.get(task, "other") for (task,) in found.by("task")}
    bounds = (size for limit, size in _SIZES if whole.conversations < limit)
    fields = {
        "language": sorted(languages),
        "license": sorted(licences),
        "task_categories": sorted(tasks),
        "size_categories": [next(bounds, "n>10M")],
        "pretty_name": name,
    }
    written = {key: value for key, value in fields.items() if value}
    return f"---\n{yaml.safe_dump(written, sort_keys=False, allow_unicode=True)}---\n"


def _licence(name: str) -> str:
    if name == UNSTATED:
        return "unknown"
    return name.lower() if _LICENCES.fullmatch(name.lower()) else "other"


def _shares(found: Inspection, *facts: str) -> str:
    rows = [
        (
            *(_named(fact, value) for fact, value in zip(facts, values, strict=True)),
            f"{share.conversations:,}",
            f"{share.clips:,}",
            _hours(share),
        )
        for values, share in found.by(*facts).items()
    ]
    return _table((*facts, "conversations", "clips", "hours"), rows, len(facts))


def _named(fact: str, value: str) -> str:
    is_code = fact == "language" and value in LANGUAGES
    return f"{LANGUAGES[value]} ({value})" if is_code else value


def _lengths(found: Inspection) -> str:
    rows = [
        (f"text, {found.tokens}", found.text_tokens),
        (f"answers, {found.tokens}", found.answer_tokens),
    ]
    if found.clip_s:
        rows.append(("clips, seconds", found.clip_s))
    return _table(
        ("", "least", "5 %", "median", "95 %", "greatest"),
        [(name, *(f"{value:,.4g}" for value in each.percentiles)) for name, each in rows],
    )


def _made(reports: Sequence[tuple[Path, object]]) -> list[str]:
    if not reports:
        return ["No `report.json` lies beside the data, so this is not recorded."]
    return [
        text
        for path, report in reports
        for text in (f"From `{path.parent.name}/{path.name}`:", "\n".join(_bullets(report, 0)))
    ]


def _bullets(value: object, depth: int) -> Iterable[str]:
    """Write parsed JSON as nested lists."""
    indent = "  " * depth
    pairs = (
        [(f"{_plain(str(key))}: ", inner) for key, inner in value.items()]
        if isinstance(value, dict)
        else [("", inner) for inner in (value if isinstance(value, list) else [value])]
    )
    for name, inner in pairs:
        if isinstance(inner, dict | list):
            yield f"{indent}- {name}".rstrip()
            yield from _bullets(inner, depth + 1)
        else:
            shown = inner if isinstance(inner, str) else json.dumps(inner)
            yield f"{indent}- {name}{_plain(shown)}"


def _reports(paths: Sequence[str]) -> list[tuple[Path, object]]:
    files = [file for path in paths for file in Records(path).files]
    beside = dict.fromkeys(file.parent / "report.json" for file in files)
    reports: list[tuple[Path, object]] = []
    for path in filter(Path.is_file, beside):
        try:
            reports.append((path, json.loads(path.read_text(encoding="utf-8"))))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}: not JSON ({error.msg}), so the card cannot quote it; "
                f"correct the file or move it away"
            ) from None
    return reports


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    lines = [head, rule, *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text as Markdown that shows it and does nothing else, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!:@])", r"\\\1", " ".join(text.split()))


def _hours(share: Share | None) -> str:
    return f"{share.hours:,.2f}" if share else "0.00"
