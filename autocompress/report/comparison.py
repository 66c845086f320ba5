"""What a comparison of methods found, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from autocompress.core.comparison import FREE, NOISY, Point, chosen

CAPTION = "latency as a multiple of the original's, test accuracy in %"

DROPS = (0.0, 0.01, 0.02)
"""Losses of accuracy on `val` that the table tells the fastest file for."""


def comparison_tables(record: Mapping[str, Any]) -> Group:
    """Lay out hypervolumes, the fastest files within some points of accuracy, and failures.

    Args:
        record: The content of `comparison.json`.
    """
    points = [Point.from_json(point) for point in record["points"]]
    baseline, rest = points[0], points[1:]
    compared = any(record["joint_minus"].values())  # nothing where there is one seed
    volumes = Table("method")
    volumes.add_column("hypervolume (quartiles)", justify="right", no_wrap=True)
    if compared:
        volumes.add_column("joint minus it, 95 %", justify="right", no_wrap=True)
    files = Table("method", caption=f"{CAPTION}; {noise(points)}")
    for drop in DROPS:
        files.add_column(f"val -{100 * drop:.0f} pt", justify="right", no_wrap=True)
    for name, values in record["hypervolume"].items():
        title = record["titles"].get(name, name)
        difference = [interval(record["joint_minus"].get(name))] if compared else []
        volumes.add_row(title, spread(values), *difference)
        made = [point for point in rest if point.method == name]
        if not made:  # several methods together
            made = [point for point in rest if point.method in record.get("contenders", ())]
        made = with_free(made, rest, baseline)
        files.add_row(
            title,
            *(fastest(median_seed(made, baseline, drop), baseline, drop) for drop in DROPS),
        )
    lines = [
        Text(f"{cell['method']}, seed {cell['seed']}, failed: {cell['error']}")  # no markup
        for cell in record["failed"]
    ]
    return Group(volumes, files, *lines)


def with_free(made: Sequence[Point], every: Sequence[Point], baseline: Point) -> list[Point]:
    """Add to the files of a method what everyone has: the original, and int8 of its seeds."""
    seeds = {point.seed for point in made}
    return [baseline, *made, *(p for p in every if p.method == FREE and p.seed in seeds)]


def noise(points: Sequence[Point]) -> str:
    """Say how many files were measured less exactly than files are told apart."""
    noisy = sum(point.noisy for point in points)
    return f"{noisy} of {len(points)} latencies have intervals wider than {100 * NOISY:.0f} %"


def spread(values: Sequence[float]) -> str:
    """Write the median, and the quartiles of more than one value.

    Example:
        >>> spread([0.2, 0.3, 0.7]), spread([0.5])
        ('0.300 (0.250 to 0.500)', '0.500')
    """
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(values) > 1 else "")


def interval(difference: Mapping[str, float] | None) -> str:
    """Write a mean difference and its interval; nothing where there is none."""
    if difference is None:
        return ""
    return "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**difference)


def fastest(points: Sequence[Point], baseline: Point, drop: float) -> str:
    """Write latency and test accuracy of the fastest point within a loss on `val`."""
    within = [p for p in chosen(points) if p.val_accuracy >= baseline.val_accuracy - drop - 1e-9]
    if not within:
        return "none"
    return f"{within[0].latency_ratio:.2f}x {100 * within[0].accuracy:.1f}"


def median_seed(points: Sequence[Point], baseline: Point, drop: float) -> list[Point]:
    """Return the points of one seed: the median one by its fastest within a loss on `val`."""

    def latency(seed: int) -> float:
        kept = [p for p in points if p is baseline or p.seed == seed]
        within = [p for p in kept if p.val_accuracy >= baseline.val_accuracy - drop - 1e-9]
        return min((p.latency_ratio for p in within), default=float("inf"))

    seeds = sorted({p.seed for p in points if p is not baseline}, key=latency)
    middle = seeds[len(seeds) // 2] if seeds else None
    return [p for p in points if p is baseline or p.seed == middle]
