"""The front as a matplotlib figure, for papers and notebooks without scripts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autocompress.errors import MissingExtraError, explain
from autocompress.report.figures import (
    BASELINE_COLOUR,
    FRONT_COLOUR,
    TEST_COLOUR,
    TRIAL_COLOUR,
    cost_axis,
)
from autocompress.report.summary import ArtifactRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (
    ("dominated", "val_accuracy", "dominated, val", TRIAL_COLOUR, "o"),
    ("infeasible", "val_accuracy", "infeasible, val", TRIAL_COLOUR, "x"),
    ("front", "val_accuracy", "front, val", FRONT_COLOUR, "o"),
    ("front", "accuracy", "front, test", TEST_COLOUR, "o"),
    ("baseline", "val_accuracy", "baselines, val", BASELINE_COLOUR, "*"),
)
"""Kind of artifact, what is shown of it, and how."""


def matplotlib_figure(rows: Sequence[ArtifactRow], cost: str) -> "Figure":
    """Plot measured accuracies against one cost.

    Args:
        rows: Baselines and members.
        cost: The cost, such as "latency_ms".

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            explain(
                "backend 'matplotlib'",
                expected="matplotlib",
                got="nothing",
                remedy="run pip install 'autocompress[plots]'",
            )
        ) from error
    title, scale = cost_axis(cost)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for kind, key, label, colour, marker in LOOKS:
        own = [r for r in rows if r.kind == kind and key in r.measured and cost in r.measured]
        if not own:
            continue
        xs = [scale * row.measured[cost] for row in own]
        ys = [100.0 * row.measured[key] for row in own]
        filled = colour if key == "val_accuracy" else "none"
        if marker == "x":
            axes.scatter(xs, ys, label=label, color=colour, marker=marker, zorder=2)
        else:
            axes.scatter(
                xs, ys, label=label, facecolor=filled, edgecolor=colour, marker=marker, zorder=2
            )
        for row, x, y in zip(own, xs, ys, strict=True):
            if key == "val_accuracy" and row.accuracy_interval:
                axes.plot([x, x], [100.0 * end for end in row.accuracy_interval], color=colour)
            if key == "val_accuracy" and cost == "latency_ms" and "latency_ci95_ms" in row.measured:
                axes.plot(row.measured["latency_ci95_ms"], [y, y], color=colour)
    axes.set_xlabel(title)
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
