"""Pages: HTML that escapes itself, and the one stylesheet of every report.

A page is one file: nothing in it is fetched from a network.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

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
        tag("style", Html(Path(__file__).with_suffix(".css").read_text("utf-8") + style)),
    )
    scripts = [tag("script", Html(script))] if script else []
    body = tag("body", tag("main", *children), *scripts)
    return Html("<!doctype html>\n" + tag("html", head, body, lang="en") + "\n")


def _shown(value: str | float) -> str:
    return f"{value:.5g}" if isinstance(value, float) else escape(str(value))
