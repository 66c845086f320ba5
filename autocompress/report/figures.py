"""The plots of the report: the front, and predictions against measurements."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from autocompress.core.objective import cost_unit
from autocompress.report.summary import ArtifactRow

COST_AXES: Mapping[str, tuple[str, float]] = {
    "latency_ms": ("latency (ms)", 1.0),
    "size_bytes": ("size (kB)", 1e-3),
    "macs": ("multiply-accumulates (millions)", 1e-6),
    "bops": ("bit operations (billions)", 1e-9),
    "parameters": ("parameters (thousands)", 1e-3),
    "energy_mj": ("energy (mJ)", 1.0),
    "peak_memory_bytes": ("peak activation memory (kB)", 1e-3),
}
"""Title of a cost's axis, and what turns the cost into the title's unit."""


def cost_axis(name: str) -> tuple[str, float]:
    """Return the title of a cost's axis, and what turns the cost into the title's unit."""
    known = COST_AXES.get(name)
    return (f"{name} ({cost_unit(name)})", 1.0) if known is None else known


def quantity_words(name: str) -> str:
    """Return the name of a quantity as headings and labels write it.

    Example:
        >>> quantity_words("latency_ms"), quantity_words("accuracy")
        ('latency', 'accuracy')
    """
    for unit in ("_ms", "_bytes", "_mj"):
        name = name.removesuffix(unit)
    words = {"macs": "MACs", "bops": "bit operations", "peak_memory": "peak activation memory"}
    return words.get(name, name)


FRONT_COLOUR = "#3d85e0"
TEST_COLOUR = "#d97a1f"
BASELINE_COLOUR = "#2f9e77"
TRIAL_COLOUR = "#8b93a1"
CHOSEN_COLOUR = "#c2379b"
"""Readable on a light and on a dark page; symbols differ as well."""


SCALED = {
    False: ("dense float, predicted", "longdash"),
    True: ("dense int8, predicted", "dash"),
}
"""By whether it is quantised: the line of the original at several widths, and its dash."""

TRIALS, UNIFORM_TRIALS = "trials, predicted", "uniform designs, predicted"
"""Names of the points of trials."""

SCALING_ORIGINS = ("unmodified", "plain int8", "uniform pruning")
"""Designs that leave the original as it is but for the same width everywhere."""

CHOSEN = "chosen member"
"""Name of the trace that the page's script moves to the member that is looked at."""


def front_figure(
    rows: Sequence[ArtifactRow], trials: Sequence[Mapping[str, Any]], cost: str
) -> go.Figure:
    """Plot accuracy against one cost.

    Args:
        rows: Baselines, the front, and others.
        trials: The trials; those with a prediction are drawn faintly.
        cost: The cost, such as "latency_ms".
    """
    title, scale = cost_axis(cost)
    figure = go.Figure()
    for name, uniform, symbol in (
        (TRIALS, False, "circle"),
        (UNIFORM_TRIALS, True, "square-open"),
    ):
        own = [t for t in trials if str(t.get("origin", "")).startswith("uniform") == uniform]
        predicted = _predicted(own, cost)
        if predicted:
            figure.add_scatter(
                x=[scale * x for x, _ in predicted],
                y=[100 * y for _, y in predicted],
                name=name,
                mode="markers",
                marker={"color": TRIAL_COLOUR, "size": 5, "opacity": 0.6, "symbol": symbol},
                hovertemplate=f"{name}<br>%{{x:.4g}}, %{{y:.2f}} %<extra></extra>",
            )
    for quantised, (name, dash) in SCALED.items():
        line = _predicted(scaled_designs(trials, quantised=quantised), cost)
        if len(line) > 1:
            figure.add_scatter(
                x=[scale * x for x, _ in line],
                y=[100 * y for _, y in line],
                name=name,
                mode="lines+markers",
                line={"color": BASELINE_COLOUR, "width": 1.5, "dash": dash},
                marker={"size": 7, "symbol": "square-open"},
                hovertemplate=f"{name}<br>%{{x:.4g}}, %{{y:.2f}} %<extra></extra>",
            )
    measured = [row for row in rows if cost in row.measured]
    for kind, split, key, colour, symbol in (
        ("dominated", "val", "val_accuracy", TRIAL_COLOUR, "circle-open"),
        ("infeasible", "val", "val_accuracy", TRIAL_COLOUR, "x-thin"),
        ("front", "val", "val_accuracy", FRONT_COLOUR, "circle"),
        ("front", "test", "accuracy", TEST_COLOUR, "circle-open"),
    ):
        members = [row for row in measured if row.kind == kind and key in row.measured]
        if members:
            _add_points(figure, members, cost, key, scale, (f"{kind}, {split}", colour, symbol))
    symbols = {"original": "star", "plain int8": "diamond"}
    for row in measured:
        if row.kind == "baseline" and "val_accuracy" in row.measured:
            look = (f"{row.id}, val", BASELINE_COLOUR, symbols[row.id])
            _add_points(figure, [row], cost, "val_accuracy", scale, look)
    figure.add_scatter(
        x=[],
        y=[],
        name=CHOSEN,
        mode="markers",
        marker={"size": 20, "symbol": "circle-open", "color": CHOSEN_COLOUR, "line": {"width": 2}},
        hoverinfo="skip",
    )
    return finished(figure, x=title, y="accuracy (%)").update_layout(height=440)


def scaled_designs(
    trials: Sequence[Mapping[str, Any]], *, quantised: bool
) -> list[Mapping[str, Any]]:
    """List the trials that scale the original: every group loses the same share of channels.

    It is what one gets of the architecture without a search. Layers are either
    all in float or all as in plain int8; nothing is dropped or sparse.

    Args:
        trials: The trials, with "origin", "quantised_layers" and "mean_pruning_ratio".
        quantised: Whether the int8 ones are wanted.

    Returns:
        The widest first.
    """
    own = [
        trial
        for trial in trials
        if trial.get("origin") in SCALING_ORIGINS
        and bool(trial.get("quantised_layers")) == quantised
    ]
    return sorted(own, key=lambda trial: float(trial.get("mean_pruning_ratio") or 0.0))


def _predicted(trials: Sequence[Mapping[str, Any]], cost: str) -> list[tuple[float, float]]:
    """List cost and accuracy as predicted; what is counted, not predicted, is exact."""
    known = [
        (trial.get(f"{cost}_predicted", trial.get(cost)), trial.get("predicted_accuracy"))
        for trial in trials
    ]
    return [(x, y) for x, y in known if x is not None and y is not None]


def prediction_figure(rows: Sequence[ArtifactRow], name: str) -> go.Figure:
    """Plot predicted against measured values of the members.

    Args:
        rows: Baselines and members; members with both values are drawn.
        name: "accuracy", measured on `val`, or a cost.
    """
    title, scale = ("accuracy on val (%)", 100.0) if name == "accuracy" else cost_axis(name)
    key = "val_accuracy" if name == "accuracy" else name
    known = [row for row in rows if name in row.predicted and key in row.measured]
    x = [scale * row.predicted[name] for row in known]
    y = [scale * row.measured[key] for row in known]
    ends = [min(x + y), max(x + y)] if known else []
    figure = go.Figure()
    figure.add_scatter(
        x=ends,
        y=ends,
        name="predicted = measured",
        mode="lines",
        line={"color": TRIAL_COLOUR, "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=y,
        name="members",
        mode="markers",
        marker={"color": FRONT_COLOUR, "size": 9},
        error_y=_bars(known, name, key, FRONT_COLOUR),
        text=[row.id for row in known],
        customdata=[row.id for row in known],
        hovertemplate="%{text}<br>predicted %{x:.4g}, measured %{y:.4g}<extra></extra>",
    )
    return finished(figure, x=f"predicted {title}", y=f"measured {title}")


def _add_points(
    figure: go.Figure,
    rows: Sequence[ArtifactRow],
    cost: str,
    key: str,
    scale: float,
    look: tuple[str, str, str],
) -> None:
    name, colour, symbol = look
    once = key == "val_accuracy"  # intervals are drawn once per artifact
    figure.add_scatter(
        x=[scale * row.measured[cost] for row in rows],
        y=[100 * row.measured[key] for row in rows],
        name=name,
        mode="markers",
        marker={
            "color": colour,
            "size": 11,
            "symbol": symbol,
            "line": {"width": 1.5, "color": colour},
        },
        error_x=_bars(rows, cost, cost, colour) if once else None,
        error_y=_bars(rows, "accuracy", key, colour) if once else None,
        text=[row.id for row in rows],
        customdata=[row.id for row in rows],
        hovertemplate=f"%{{text}} ({name})<br>%{{x:.4g}}, %{{y:.2f}} %<extra></extra>",
    )


def _bars(rows: Sequence[ArtifactRow], name: str, key: str, colour: str) -> dict[str, Any] | None:
    """Return 95 % intervals as plotly's error bars; None for what is exact.

    Args:
        rows: Artifacts.
        name: "accuracy" or a cost.
        key: Name of the measured value.
        colour: Of the bars.
    """
    if name not in ("accuracy", "latency_ms"):
        return None
    scale = 100.0 if name == "accuracy" else cost_axis(name)[1]
    ends = []
    for row in rows:
        centre = row.measured[key]
        known = row.accuracy_interval if name == "accuracy" else row.measured.get("latency_ci95_ms")
        low, high = known or (centre, centre)
        ends.append((scale * (centre - low), scale * (high - centre)))
    return {
        "type": "data",
        "symmetric": False,
        "array": [above for _, above in ends],
        "arrayminus": [below for below, _ in ends],
        "thickness": 1.2,
        "width": 3,
        "color": colour,
    }


def finished(figure: go.Figure, *, x: str, y: str) -> go.Figure:
    """Give a figure its axes; the page's style sheet colours text and lines."""
    axis = {"gridcolor": "#888", "zeroline": False, "automargin": True, "ticks": "outside"}
    return figure.update_layout(
        template="none",
        height=380,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        xaxis={**axis, "title": {"text": x}},
        yaxis={**axis, "title": {"text": y}},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="closest",
    )
