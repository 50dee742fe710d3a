"""Pages: HTML that escapes itself, and the one stylesheet of every report.

A page is one file: nothing in it is fetched from a network.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape

_VOID = frozenset({"meta", "br", "input"})
_SVG_VOID = frozenset({"line", "circle", "rect", "path", "polyline"})


class Html(str):
    """Markup. Any other string is text, and is escaped where it enters markup."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | bool) -> Html:
    """Return an element; `class_` stands for `class`, `stroke_width` for `stroke-width`.

    An attribute that is True stands alone, and one that is False is left out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_shown(value)}"')
        for key, value in attributes.items()
        if value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    if name in _SVG_VOID and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Return the children one behind the other, text escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(c, quote=False) for c in children))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1, class_: str = ""
) -> Html:
    """Return a table; the first `text_columns` columns are set left, the others right."""

    def cells(kind: str, row: Sequence[str]) -> list[Html]:
        return [
            tag(kind, cell, class_="text" if place < text_columns else "number")
            for place, cell in enumerate(row)
        ]

    body = [tag("tr", *cells("td", row)) for row in rows]
    whole = tag(
        "table", tag("thead", tag("tr", *cells("th", head))), tag("tbody", *body), class_=class_
    )
    return tag("div", whole, class_="scroll")


def section(title: str, lead: str, *children: str) -> Html:
    """Return a part of the page with a heading and a sentence that says what it shows."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead"), *children)


def details(summary: str, *children: str) -> Html:
    """Return children that are folded away until asked for."""
    return tag("details", tag("summary", summary), *children)


def data_url(kind: str, data: bytes) -> str:
    """Return a URL that holds the data itself; `kind` is its media type."""
    return f"data:{kind};base64,{b64encode(data).decode()}"


def page(title: str, *children: str, style: str = "", script: str = "") -> Html:
    """Return the whole document, in which no other script can run and nothing can be fetched.

    `style` comes after the stylesheet that all pages share; `script` runs when all is there.
    """
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE + style)),
    )
    scripts = [tag("script", Html(script))] if script else []
    body = tag("body", tag("main", *children), *scripts)
    return Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")


def _shown(value: str | float) -> str:
    return f"{value:.5g}" if isinstance(value, float) else escape(str(value))


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #62676f; --line: #e3e4e6;
  --ours: #1668c7; --theirs: #c2660c; --before: #8b9098; --good: #1a7f4b; --bad: #c0322b;
  --wrong: #fbe1dd; --good-soft: #ddf2e5; --soft-fill: #eef0f2;
  --c0: #1668c7; --c1: #d9730d; --c2: #15876a; --c3: #a2418f; --c4: #8a7400; --c5: #5d5fc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1b1e22; --ink: #e8e9eb; --soft: #9ba1aa; --line: #30343a;
    --ours: #6db3ff; --theirs: #f5a352; --before: #858c96; --good: #62cf95; --bad: #ff8a80;
    --wrong: #4d2523; --good-soft: #173a28; --soft-fill: #272b31;
    --c0: #6db3ff; --c1: #f5a352; --c2: #4fcfa8; --c3: #e58ad0; --c4: #d9c04a; --c5: #a5a7ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 6px; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 0 0 2px; }
h3 { font-size: 15px; margin: 0 0 6px; }
section { margin-top: 52px; }
p { margin: 0 0 12px; max-width: 76ch; }
.eyebrow { color: var(--soft); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; }
.verdict { font-size: 19px; line-height: 1.5; margin: 14px 0 24px; }
.lead, .note { color: var(--soft); }
.lead { margin-bottom: 16px; }
.warning { color: var(--bad); margin-top: 8px; }
.note { font-size: 13px; margin-top: 8px; max-width: 110ch; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px 12px; }
.tile .name { font-size: 13px; color: var(--soft); min-height: 40px; line-height: 1.5; }
.tile .big { font-size: 32px; line-height: 1.25; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile .unit { font-size: 15px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.tile .under { font-size: 13px; color: var(--soft); }
.chip { display: inline-block; font-size: 12px; line-height: 18px; padding: 0 7px;
  border-radius: 9px; background: var(--soft-fill); color: var(--ink); white-space: nowrap; }
.chip.alarm { background: var(--wrong); color: var(--bad); font-weight: 600; }
.chip.kept, .chip.better { background: var(--good-soft); color: var(--good); }
.range.good { color: var(--good); } .range.bad { color: var(--bad); }
.chip.real { background: var(--good-soft); color: var(--good); font-weight: 600; }
.chip.synthetic { outline: 1px dashed var(--soft); outline-offset: -1px; background: none; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { font-weight: 500; color: var(--soft); font-size: 13px; vertical-align: bottom; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
.text { text-align: left; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.prose td { vertical-align: top; text-align: left; white-space: pre-wrap; width: 38%;
  overflow-wrap: anywhere; }
.prose td:first-child { width: 24%; font-weight: 550; }
.range { color: var(--soft); font-size: 12px; display: block; }
.ours { color: var(--ours); } .theirs { color: var(--theirs); } .before { color: var(--before); }
b, .strong { font-weight: 650; }
.figures { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px 10px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 4px; }
svg { display: block; max-width: 100%; font: 11px system-ui, sans-serif; }
figure > svg { width: 100%; height: auto; }
figure td, figure th { padding: 6px 7px; }
table svg { max-width: none; }
svg text { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: 1; }
.key { display: inline-flex; align-items: center; gap: 6px; margin-right: 16px; font-size: 13px; }
.key i { width: 12px; height: 12px; border-radius: 3px; }
.legend { margin: 0 0 8px; }
.clips { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); }
.clip { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; font-size: 15px; }
.clip audio { width: 100%; height: 34px; margin: 8px 0 6px; }
.clip dl { margin: 0; display: grid; grid-template-columns: 76px 1fr; gap: 3px 8px; }
.clip dt { color: var(--soft); font-size: 13px; line-height: 23px; }
.clip dd { margin: 0; overflow-wrap: anywhere; }
mark { background: var(--wrong); color: var(--ink); border-radius: 3px; padding: 0 3px; }
del { color: var(--bad); opacity: .8; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 16px; margin-top: 10px; }
summary { cursor: pointer; font-weight: 550; }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, monospace;
  margin: 10px 0 4px; }
details .scroll { border: 0; border-radius: 0; margin-top: 8px; }
@media (max-width: 520px) {
  main { padding: 24px 14px 48px; }
  .clips, .figures { grid-template-columns: 1fr; }
}
@media print { body { background: none; } section, figure, .clip { break-inside: avoid; } }
"""
