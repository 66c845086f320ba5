"""Write the page and the plots of the documentation from the evidence.

python examples/benchmarks/evidence/page.py docs/benchmarks/evidence.json docs/benchmarks.md
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from autocompress.core.comparison import Point, chosen
from autocompress.core.files import read_json
from autocompress.report.comparison import DROPS, fastest, interval, spread

COLOURS = ("#3d85e0", "#d97a1f", "#2f9e77", "#b04a9c", "#8b6f3e", "#c0392b", "#6b7a8f", "#1f9fb5")
WIDTH, HEIGHT, MARGIN = 640, 400, 52
START, END = "<!-- evidence: written by page.py -->", "<!-- end of evidence -->"


def main() -> None:
    """Replace what is between the marks of the page, and write one plot per network and target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evidence", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    record = read_json(options.evidence)
    before, _, rest = options.page.read_text().partition(START)
    after = rest.partition(END)[2]
    lines = list(written(record, options.evidence.parent, options.page.parent))
    options.page.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n{END}{after}")


def written(record: Mapping[str, Any], folder: Path, page: Path) -> Iterator[str]:
    """Yield the lines of all networks and targets; write their plots on the way."""
    if not record["models"]:
        yield "No figures yet.\n"
    for network, targets in record["models"].items():
        for target, found in targets.items():
            points = [Point.from_json(point) for point in found["points"]]
            plot = folder / f"evidence-{network}-{target}.svg"
            plot.write_text(front_plot(points, found["titles"]))
            yield f"### {network} on {target}\n"
            yield f"![fronts of {network} on {target}]({plot.relative_to(page)})\n"
            yield from table(found, points)
            yield from verdict(found, points)


def table(found: Mapping[str, Any], points: Sequence[Point]) -> Iterator[str]:
    """Yield a row per method: hypervolume, and the fastest file within some points."""
    drops = " | ".join(f"within {100 * drop:.0f} pt" for drop in DROPS)
    yield f"| method | seeds | hypervolume (quartiles) | joint minus it (95 %) | {drops} |"
    yield "|---|---|---|---|" + "---|" * len(DROPS)
    volumes = found["hypervolume"]
    for name, values in sorted(volumes.items(), key=lambda item: -max(item[1], default=0)):
        group = found["contenders"] if name == "union_of_contenders" else [name]
        made = [point for point in points[1:] if point.method in group]
        cells = [found["titles"].get(name, name), str(len(values)), spread(values)]
        cells += [interval(found["joint_minus"].get(name))]
        cells += [fastest(made, points[0], drop) for drop in DROPS]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def verdict(found: Mapping[str, Any], points: Sequence[Point]) -> Iterator[str]:
    """Yield where others win, and what could not be run."""
    beaten = found["dominated"]
    if "joint" in found["hypervolume"]:
        joint, union = (median(found["hypervolume"][n]) for n in ("joint", "union_of_contenders"))
        members = [p for p in points if p.method == "joint"]
        yield (
            f"The joint front's hypervolume (median) is {joint:.3f}, that of all contenders "
            f"together {union:.3f}. Of {len(members)} files of the joint searches, {len(beaten)} "
            "on their fronts are beaten by a file of a contender: no less accurate on `test`, and "
            "faster beyond both intervals."
        )
        yield ""
    for entry in beaten:
        yield f"* `{entry['path']}` by " + ", ".join(f"`{path}`" for path in entry["by"])
    for cell in found["failed"]:
        reason = " ".join(cell["error"].split())
        yield f"* {found['titles'].get(cell['method'], cell['method'])}: not run. {reason}"
    yield ""


def front_plot(points: Sequence[Point], titles: Mapping[str, str]) -> str:
    """Draw accuracy on `test` over latency: every file, and the fronts chosen on `val`."""
    baseline, rest = points[0], points[1:]
    limit = baseline.accuracy - 0.06
    shown = [p for p in rest if p.accuracy >= limit]
    methods = sorted({p.method for p in shown}, key=lambda name: (name != "joint", name))
    right = 1.15 * max([1.0, *(p.latency_ratio for p in shown)])
    top = max([baseline.accuracy, *(p.accuracy for p in shown)]) + 0.005

    def place(latency: float, accuracy: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * latency / right
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (accuracy - limit) / (top - limit)

    parts = [*axes(right, limit, top, place)]
    for number, name in enumerate(methods):
        colour = COLOURS[number % len(COLOURS)]
        made = [p for p in shown if p.method == name]
        for point in made:
            x, y = place(point.latency_ratio, point.accuracy)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" opacity="0.55">'
                f"<title>{escape(point.path)}</title></circle>"
            )
        line = " ".join(
            "{:.1f},{:.1f}".format(*place(p.latency_ratio, p.accuracy)) for p in chosen(made)
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        legend = escape(titles.get(name, name))
        parts.append(
            f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN - 12 * (len(methods) - number)}" '
            f'fill="{colour}" text-anchor="end">{legend}</text>'
        )
    x, y = place(1.0, baseline.accuracy)
    parts.append(f'<path d="M{x - 5} {y}h10M{x} {y - 5}v10" stroke="#888" stroke-width="2"/>')
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'{head} font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'


def axes(right: float, limit: float, top: float, place: Any) -> Iterator[str]:
    """Yield the lines and labels of both axes."""
    corner, end, roof = place(0.0, limit), place(right, limit), place(0.0, top)
    frame = "M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}".format(*roof, *corner, *end)
    yield f'<path d="{frame}" fill="none" stroke="#888"/>'
    for step in range(6):
        latency, accuracy = right * step / 5, limit + (top - limit) * step / 5
        x, y = place(latency, limit)
        yield f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{latency:.2f}</text>'
        x, y = place(0.0, accuracy)
        yield f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{100 * accuracy:.1f}</text>'
    label = "latency, as a multiple of the original's"
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{label}</text>'
    yield f'<text x="{MARGIN}" y="{MARGIN - 20}">accuracy on test, %</text>'


if __name__ == "__main__":
    main()
