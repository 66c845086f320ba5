"""Write the page and the plots of the documentation from the evidence.

python examples/benchmarks/evidence/page.py docs/benchmarks/evidence.json docs/benchmarks.md

Several files may be given, the page last: a network that was in an earlier one, too, is named with
the minutes of each method.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from autocompress.core.comparison import ACCURACY_ROOM, Point, mean_difference
from autocompress.core.files import read_json
from autocompress.report.comparison import (
    DROPS,
    fastest,
    interval,
    median_seed,
    noise,
    spread,
    with_free,
)
from charts import Axis, Series, chart

WAYS = ("joint", "sequential", "random", "pruning-only", "bits-only", "int8")
"""Methods of the second plot: the joint search, and other ways to spend the minutes."""

CAPTION = (
    "Every file of all seeds within 5 points of the original, which is the cross, and within 1.25 "
    "times its latency; lines join the files of a method that none of its others beats on `test`."
)

GLANCE = (
    "Hypervolumes of the joint search, of all contenders together and of `sequential`, with how "
    "many seeds; by how much the joint search's is more with the seeds that both have; and how "
    "many files of joint searches, of all that were exported, are on their fronts and beaten by a "
    "contender's."
)

ALL = (
    "A file's worth depends on the processor, so that values of a method differ by more than its "
    "luck; differences are those of the same seed on the same processor."
)

WIDTH = 120
"""Characters of a line of prose."""

START, END = "<!-- evidence: written by page.py -->", "<!-- end of evidence -->"


def main() -> None:
    """Replace what is between the marks of the page, and write one plot per network and target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evidence", type=Path, nargs="+")
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    record = together([read_json(path) for path in options.evidence])
    before, _, rest = options.page.read_text().partition(START)
    after = rest.partition(END)[2]
    lines = list(written(record, options.evidence[0].parent, options.page.parent))
    options.page.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n{END}{after}")


def together(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the networks of several files."""
    models: dict[str, Any] = {}
    for record in records:
        for network, targets in record["models"].items():
            minutes = next(iter(targets.values()))["settings"][0]["minutes"]
            models[f"{network}, {minutes:g} min" if network in models else network] = targets
    return {"models": models}


def written(record: Mapping[str, Any], folder: Path, page: Path) -> Iterator[str]:
    """Yield the lines of all networks and targets; write their plots on the way."""
    if not record["models"]:
        yield "No figures yet.\n"
        return
    yield "## All figures\n"
    yield from glance(record)
    for network, targets in record["models"].items():
        for target, whole in targets.items():
            name = f"{network} on {target}"
            for place in whole["settings"]:
                yield f"### {name}, {place['processor']} with {place['vectors']}\n"
                found = with_seeds(whole, place["seeds"])
                points = [Point.from_json(point) for point in found["points"]]
                yield f"{wrapped(f'{setting(found, place).strip()} {noise(points)}.')}\n"
                yield wrapped(CAPTION) + "\n"
                for what, names in plots(found).items():
                    host = slug(f"{place['processor']} {place['vectors']}")
                    plot = folder / f"evidence-{slug(network)}-{target}-{host}-{what}.svg"
                    plot.write_text(front_plot(points, found["titles"], names))
                    yield f"![{what} on {network}]({plot.relative_to(page)})\n"
                yield from table(found, points)
                yield from verdict(found, points)
            if len(whole["settings"]) > 1:
                yield f"### {name}, seeds of all processors\n"
                yield wrapped(ALL) + "\n"
                yield from volume_table(whole)
                yield ""


def glance(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table with a row per network, target and processor: joint beside all others."""
    yield wrapped(GLANCE) + "\n"
    yield "| network | target | processor | joint | contenders | | sequential | | beaten |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for network, targets in record["models"].items():
        for target, whole in targets.items():
            for place in whole["settings"]:
                found = with_seeds(whole, place["seeds"])
                joint = by_seed(found, "joint")
                cells = [network, target, f"{place['processor']}, {place['vectors']}"]
                cells += [f"{median(joint.values()):.3f} ({len(joint)})"]
                for name in ("union_of_contenders", "sequential"):
                    ours, other, seeds = beside(found, name)
                    cells += (
                        [f"{other:.3f} ({len(seeds)})", more(ours, other)] if seeds else ["", ""]
                    )
                members = [p for p in found["points"] if p["method"] == "joint"]
                cells.append(f"{len(found['dominated'])} of {len(members)}")
                yield "| " + " | ".join(cells) + " |"
    yield ""


def beside(found: Mapping[str, Any], name: str) -> tuple[float, float, list[int]]:
    """Return hypervolumes of the joint search and of a method, with the seeds of both."""
    ours, theirs = by_seed(found, "joint"), by_seed(found, name)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return 0.0, 0.0, []
    return median(ours[seed] for seed in seeds), median(theirs[seed] for seed in seeds), seeds


def more(joint: float, union: float) -> str:
    """Say by how much the first is more than the second."""
    return f"{joint / union - 1.0:+.1%}" if union else ""


def plots(found: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the methods of every plot that shows more than the one before, by its name."""
    contenders = ["joint", *found["contenders"]]
    others = {*WAYS} & {*found["hypervolume"]} - {*contenders}
    return {"contenders": contenders} | ({"ways": WAYS} if others else {})


def with_seeds(found: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """Return what was found with some seeds alone, paired anew."""
    volumes = {
        name: {seed: value for seed, value in by_seed(found, name).items() if seed in seeds}
        for name in found["hypervolume"]
    }
    volumes = {name: values for name, values in volumes.items() if values}
    joint = volumes.get("joint", {})
    first, *others = found["points"]
    points = [first, *(point for point in others if point["seed"] in seeds)]
    paths = {point["path"] for point in points}
    return {
        **found,
        "points": points,
        "hypervolume": {name: [*values.values()] for name, values in volumes.items()},
        "seeds": {name: [*values] for name, values in volumes.items()},
        "joint_minus": {
            name: mean_difference(joint, values)
            for name, values in volumes.items()
            if name != "joint"
        },
        "dominated": [entry for entry in found["dominated"] if entry["path"] in paths],
        "failed": [cell for cell in found["failed"] if cell["seed"] in seeds],
    }


def slug(name: str) -> str:
    """Turn a name into what names of files have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def setting(found: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    """Say what the figures were found on, with how much time, and what the original is worth."""
    host, seeds = place.get("versions", found["environment"]), place["seeds"]
    original = 100 * found["points"][0]["accuracy"]
    threads = f"{place['threads']} thread{'s' * (place['threads'] != 1)}"
    return (
        f"{place['minutes']:g} minutes a method and seed, training on {threads}; seed"
        f"{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. Integer kernels "
        f"{'clip' if place['clips'] else 'are exact'} there. PyTorch {host['torch']}, ONNX Runtime "
        f"{host['onnxruntime']}. The original has {original:.1f} % on `test`. "
        f"{place.get('note', '')}"
    )


def table(found: Mapping[str, Any], points: Sequence[Point]) -> Iterator[str]:
    """Yield two tables with a row per method: hypervolume, and the fastest file within points."""
    yield from volume_table(found)
    yield ""
    yield wrapped(
        "The fastest file that loses no more than so many points on `val`, of the median seed, or "
        "the original or ONNX Runtime's int8 file, which everyone has: its latency as a multiple "
        "of the original's, and its accuracy on `test` in %."
    )
    yield ""
    yield "| method | " + " | ".join(f"{100 * drop:.0f}" for drop in DROPS) + " |"
    yield "|---|" + "---|" * len(DROPS)
    for name, _ in best_first(found):
        group = found["contenders"] if name == "union_of_contenders" else [name]
        seeds = found["seeds"][name]
        made = [p for p in points[1:] if p.method in group and p.seed in seeds]
        made = with_free(made, points[1:], points[0])
        cells = [found["titles"].get(name, name)]
        cells += [fastest(median_seed(made, points[0], drop), points[0], drop) for drop in DROPS]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def volume_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of hypervolumes, with a row per method."""
    yield "| method | seeds | hypervolume (quartiles) | joint, same seeds | joint minus it (95 %) |"
    yield "|---|---|---|---|---|"
    joint = by_seed(found, "joint")
    for name, values in best_first(found):
        same = [joint[seed] for seed in found["seeds"][name] if seed in joint and name != "joint"]
        cells = [found["titles"].get(name, name), str(len(values)), spread(values)]
        cells += [f"{median(same):.3f}" if same else "", interval(found["joint_minus"].get(name))]
        yield "| " + " | ".join(cells) + " |"


def best_first(found: Mapping[str, Any]) -> list[tuple[str, list[float]]]:
    """Return the hypervolumes of all methods, those of the best one first."""
    return sorted(found["hypervolume"].items(), key=lambda item: -median(item[1]))


def verdict(found: Mapping[str, Any], points: Sequence[Point]) -> Iterator[str]:
    """Yield where others win, and what could not be run."""
    beaten, members = found["dominated"], [p for p in points if p.method == "joint"]
    joint, union, common = beside(found, "union_of_contenders")
    if common:
        seeds = ", ".join(map(str, common))
        gain = f" ({more(joint, union)})" if union else ""
        yield wrapped(
            f"With the seeds of both ({seeds}) the joint front's hypervolume is {joint:.3f}, "
            f"that of all contenders together {union:.3f}{gain}."
        )
        yield ""
    if beaten or common:
        yield wrapped(
            f"Of {len(members)} files of the joint searches with any seed, {len(beaten)} on their "
            "fronts are beaten by a file of a contender: no less accurate on `test`, and faster "
            "beyond both intervals."
        )
        yield ""
    for entry in beaten:
        others = ", ".join(f"`{path}`" for path in entry["by"])
        yield wrapped(f"* `{entry['path']}` by {others}", "  ")
    for cell in found["failed"]:
        reason = " ".join(cell["error"].split())
        title = found["titles"].get(cell["method"], cell["method"])
        yield wrapped(f"* {title}: not run. {reason}", "  ")
    yield ""


def by_seed(found: Mapping[str, Any], name: str) -> dict[int, float]:
    """Return the hypervolumes of a method by seed; none where it was not run."""
    return dict(zip(found["seeds"].get(name, ()), found["hypervolume"].get(name, ()), strict=True))


def wrapped(text: str, indent: str = "") -> str:
    """Break a paragraph into lines of the documentation; further ones are indented."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def front_plot(points: Sequence[Point], titles: Mapping[str, str], names: Sequence[str]) -> str:
    """Draw accuracy on `test` over latency, about the box that the hypervolume counts.

    Args:
        points: The original first, then every file.
        titles: By method.
        names: The methods that are drawn, as far as they have a file there.
    """
    baseline, rest = points[0], points[1:]
    low, right = baseline.accuracy - ACCURACY_ROOM, 1.25
    shown = [p for p in rest if p.accuracy >= low and p.latency_ratio <= right]
    top = max([baseline.accuracy, *(p.accuracy for p in shown)]) + 0.005
    series = []
    for name in names:
        if made := [p for p in shown if p.method == name]:
            dots = [(p.latency_ratio, 100 * p.accuracy, p.path) for p in made]
            line = [(p.latency_ratio, 100 * p.accuracy) for p in unbeaten(made)]
            series.append(Series(name=titles.get(name, name), points=dots, line=line))
    return chart(
        series,
        Axis.even("latency, as a multiple of the original's", 0.0, right),
        Axis.even("accuracy on test, %", 100 * low, 100 * top),
        cross=(1.0, 100 * baseline.accuracy),
    )


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats on `test` and latency, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ratio, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


if __name__ == "__main__":
    main()
