"""Small charts as SVG, for the pages of the documentation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#3d85e0", "#d97a1f", "#2f9e77", "#b04a9c", "#8b6f3e", "#c0392b", "#6b7a8f", "#1f9fb5")
WIDTH, HEIGHT, MARGIN = 640, 400, 52
MOST_STEPS = 7
"""About how many steps an axis is labelled at; there may be one more."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is drawn in one colour.

    Attributes:
        name: Its name in the legend.
        points: (x, y, what the point is) for each dot.
        line: (x, y) that a line goes through.
    """

    name: str
    points: Sequence[tuple[float, float, str]]
    line: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its label with the unit, its range, and where it is labelled."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    form: str = "{:g}"

    @classmethod
    def even(cls, label: str, low: float, high: float, form: str = "{:g}") -> "Axis":
        """Widen a range to multiples of a round step, and label the axis at them.

        Example:
            >>> Axis.even("accuracy, %", 83.46, 89.2).ticks
            [83.0, 84.0, 85.0, 86.0, 87.0, 88.0, 89.0, 90.0]
        """
        raw = (high - low or 1.0) / MOST_STEPS
        unit = 10.0 ** math.floor(math.log10(raw))
        step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw)
        low, high = rounded([low, high], step)
        ticks = [low + step * number for number in range(round((high - low) / step) + 1)]
        return cls(label=label, low=low, high=high, ticks=ticks, form=form)


def chart(
    series: Sequence[Series], across: Axis, up: Axis, cross: tuple[float, float] | None = None
) -> str:
    """Draw series over two axes; `cross` marks a point of reference."""
    place = _placing(across, up)
    parts = [*_axes(across, up, place)]
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        for x, y, what in one.points:
            left, top = place(x, y)
            parts.append(
                f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}" opacity="0.55">'
                f"<title>{escape(what)}</title></circle>"
            )
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in one.line)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts.append(
            f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN - 12 * (len(series) - number)}" '
            f'fill="{colour}" text-anchor="end">{escape(one.name)}</text>'
        )
    if cross is not None:
        x, y = place(*cross)
        parts.append(f'<path d="M{x - 5} {y}h10M{x} {y - 5}v10" stroke="#888" stroke-width="2"/>')
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'{head} font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'


def rounded(values: Sequence[float], step: float) -> tuple[float, float]:
    """Return the range of values, widened to multiples of a step.

    Example:
        >>> rounded([86.2, 87.6], 0.5)
        (86.0, 88.0)
    """
    return step * math.floor(min(values) / step), step * math.ceil(max(values) / step)


def by_name(points: Mapping[str, Sequence[tuple[float, float, str]]]) -> list[Series]:
    """Make a series of every name, its line through the means at each x."""
    return [
        Series(name=name, points=found, line=_means([(x, y) for x, y, _ in found]))
        for name, found in points.items()
    ]


def _means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    places = sorted({x for x, _ in points})
    columns = [[y for x, y in points if x == place] for place in places]
    return [(x, sum(ys) / len(ys)) for x, ys in zip(places, columns, strict=True)]


def _placing(across: Axis, up: Axis) -> Callable[[float, float], tuple[float, float]]:
    def place(x: float, y: float) -> tuple[float, float]:
        left = MARGIN + (WIDTH - 2 * MARGIN) * (x - across.low) / (across.high - across.low)
        part = (y - up.low) / (up.high - up.low)
        return left, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * part

    return place


def _axes(
    across: Axis, up: Axis, place: Callable[[float, float], tuple[float, float]]
) -> Iterator[str]:
    """Yield the lines and labels of both axes."""
    roof, corner, end = (
        place(across.low, up.high),
        place(across.low, up.low),
        place(across.high, up.low),
    )
    frame = "M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}".format(*roof, *corner, *end)
    yield f'<path d="{frame}" fill="none" stroke="#888"/>'
    for tick in across.ticks:
        x, y = place(tick, up.low)
        text = across.form.format(tick)
        yield f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{text}</text>'
    for tick in up.ticks:
        x, y = place(across.low, tick)
        text = up.form.format(tick)
        yield f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across.label}</text>'
    yield f'<text x="{MARGIN}" y="{MARGIN - 20}">{up.label}</text>'
