"""Charts: small SVG drawings whose colours come from the page's stylesheet."""

import math
from collections.abc import Mapping, Sequence

from voicetextblender.page import Html, tag

Points = Sequence[tuple[float, float]]

NUM_COLOURS = 6
_MAX_POINTS = 300  # a longer curve is drawn by the means of its stretches


def colour(number: int) -> str:
    """Return the colour of the series `number`; they begin anew after NUM_COLOURS."""
    return f"var(--c{number % NUM_COLOURS})"


def legend(names: Mapping[str, str]) -> Html:
    """Return a key from names to colours."""
    keys = [
        tag("span", tag("i", style=f"background:{fill}"), name, class_="key")
        for name, fill in names.items()
    ]
    return tag("div", *keys, class_="legend")


def line_chart(
    series: Mapping[str, Points], colours: Mapping[str, str], x_label: str, y_label: str
) -> Html:
    """Draw curves over a shared x axis; the y axis begins at 0."""
    width, height, left, right, top, bottom = 480, 270, 42, 12, 8, 38
    thinned = {name: _thinned(points) for name, points in series.items()}
    curves = {name: points for name, points in thinned.items() if points}
    x_max = max((x for points in curves.values() for x, _ in points), default=0.0) or 1.0
    x_ticks = [tick for tick in ticks(x_max, 5) if tick <= x_max * 1.001]
    y_ticks = ticks(max((y for points in curves.values() for _, y in points), default=1.0), 5)

    def at_x(x: float) -> float:
        return left + (width - left - right) * x / x_max

    def at_y(y: float) -> float:
        return height - bottom - (height - top - bottom) * y / y_ticks[-1]

    grid = [
        tag("line", x1=left, x2=width - right, y1=at_y(y), y2=at_y(y), class_="grid")
        for y in y_ticks
    ]
    levels = [tag("text", f"{y:g}", x=left - 7, y=at_y(y) + 4, text_anchor="end") for y in y_ticks]
    steps = [
        tag("text", f"{x:,g}", x=at_x(x), y=height - bottom + 16, text_anchor="middle")
        for x in x_ticks
    ]
    middle = (height - bottom + top) / 2
    labels = [
        tag("text", x_label, x=(left + width) / 2, y=height - 5, text_anchor="middle"),
        tag("text", y_label, text_anchor="middle", transform=f"translate(10 {middle}) rotate(-90)"),
    ]
    lines = [
        tag(
            "polyline",
            tag("title", f"{name}: {points[0][1]:.3g} at first, {points[-1][1]:.3g} at last"),
            points=" ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points),
            fill="none",
            stroke=colours[name],
            stroke_width=2,
            stroke_linejoin="round",
        )
        for name, points in curves.items()
    ]
    drawn = (*grid, *levels, *steps, *labels, *lines)
    said = f"{y_label} over {x_label}: {', '.join(curves)}"
    return _svg(width, height, drawn, said, grows=True)


def interval_chart(rows: Sequence[tuple[float, tuple[float, float], str]], limit: float) -> Html:
    """Draw each (value, interval, colour) as a dot on its interval, on an axis from 0 to `limit`.

    A value beyond the limit is drawn as an arrow head at its edge.
    """
    width, left, gap = 220, 6, 15
    height = gap * len(rows) + 4

    def at(value: float) -> float:
        return left + (width - 2 * left) * min(value, limit) / limit

    grid = [
        tag("line", x1=at(x), x2=at(x), y1=0, y2=height, class_="grid")
        for x in ticks(limit, 5)
        if x <= limit
    ]
    marks, edge = [], at(limit)
    for number, (value, (low, high), stroke) in enumerate(rows):
        y = 9.5 + gap * number
        head = f"M{edge - 7} {y - 5}L{edge} {y}L{edge - 7} {y + 5}z"
        marks += [
            tag("line", x1=at(low), x2=at(high), y1=y, y2=y, stroke=stroke, stroke_width=2),
            tag("circle", cx=at(value), cy=y, r=4.5, fill=stroke)
            if value <= limit
            else tag("path", d=head, fill=stroke),
        ]
    said = ", ".join(f"{value:.3g} ({low:.3g} to {high:.3g})" for value, (low, high), _ in rows)
    return _svg(width, height, (*grid, *marks), said)


def interval_axis(limit: float) -> Html:
    """Draw the numbers of an `interval_chart`'s axis, as percent."""
    width, left = 220, 6
    marks = [
        tag(
            "text",
            f"{100 * x:.0f}",
            x=left + (width - 2 * left) * x / limit,
            y=11,
            text_anchor="start" if not x else "end" if x == limit else "middle",
        )
        for x in ticks(limit, 5)
        if x <= limit
    ]
    return _svg(width, 14, marks, "percent")


def pair_of_bars(planned: float, realised: float, limit: float, stroke: str) -> Html:
    """Draw two shares, the planned one as an outline behind the realised one."""
    width, height = 150, 16
    scale = (width - 2) / limit
    outline = {"fill": "none", "stroke": "var(--soft)", "rx": 1.5}
    bars = (
        tag("rect", x=1, y=4, width=scale * realised, height=8, fill=stroke, rx=1.5),
        tag("rect", x=1, y=1, width=scale * planned, height=14, **outline),
    )
    said = f"planned {planned:.1%}, realised {realised:.1%}"
    return _svg(width, height, bars, said)


def ticks(largest: float, about: int) -> list[float]:
    """Return round numbers from 0 up to the first that is not below `largest`."""
    largest = largest if largest > 0 and math.isfinite(largest) else 1.0
    power = 10.0 ** math.floor(math.log10(largest / about))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power * about >= largest * 0.999)
    return [step * n for n in range(math.ceil(largest / step - 1e-9) + 1)]


def _svg(width: int, height: int, drawn: Sequence[Html], said: str, grows: bool = False) -> Html:
    """Return a drawing, which may grow; `said` is read out to those who do not see it."""
    size = {} if grows else {"width": width, "height": height}
    view = f"0 0 {width} {height}"
    return tag("svg", *drawn, viewBox=view, role="img", aria_label=said, **size)


def _thinned(points: Points) -> Points:
    """Return the finite points, or at most _MAX_POINTS means of equal stretches of them."""
    points = [point for point in points if math.isfinite(point[1])]
    size = -(-len(points) // _MAX_POINTS)
    if size <= 1:
        return points
    stretches = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part))
        for part in stretches
    ]
