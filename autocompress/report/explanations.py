"""Plots that explain a study: layers of a member, sensitivities, what each axis decided."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from autocompress.report.explorer import SHOWN_FLOAT
from autocompress.report.figures import (
    BASELINE_COLOUR,
    FRONT_COLOUR,
    TEST_COLOUR,
    TRIAL_COLOUR,
    finished,
    quantity_words,
)
from autocompress.report.importance import KINDS, Importance

KIND_COLOURS: Mapping[str, str] = dict(
    zip(KINDS, (FRONT_COLOUR, TEST_COLOUR, BASELINE_COLOUR, "#9a6fd0", TRIAL_COLOUR), strict=True)
)
"""Colours of the kinds of choices."""


def layers_figure(layers: Sequence[str], member: Mapping[str, Any]) -> go.Figure:
    """Plot what a member left of every layer: channels above, bits below.

    The page's script replaces the values of the traces when another member is chosen.

    Args:
        layers: Names of the layers.
        member: "kept" in percent, "weights" and "activations" in bits, as
            `explorer_data` has them.
    """
    figure = go.Figure()
    figure.add_bar(
        x=list(layers),
        y=member["kept"],
        name="channels left (%)",
        marker={"color": FRONT_COLOUR},
        hovertemplate="%{x}<br>%{y:.0f} % of its channels left<extra></extra>",
    )
    figure.add_bar(
        x=list(layers),
        y=member["weights"],
        name="weight bits",
        marker={"color": BASELINE_COLOUR},
        yaxis="y2",
        hovertemplate="%{x}<br>%{y} weight bits (10 stands for 32)<extra></extra>",
    )
    figure.add_scatter(
        x=list(layers),
        y=member["activations"],
        name="activation bits",
        mode="markers",
        marker={"color": TEST_COLOUR, "size": 6, "symbol": "diamond"},
        yaxis="y2",
        hovertemplate="%{x}<br>%{y} activation bits (10 stands for 32)<extra></extra>",
    )
    finished(figure, x="", y="channels (%)")
    axis = {key: figure.layout.yaxis[key] for key in ("gridcolor", "zeroline", "automargin")}
    return figure.update_layout(
        height=460,
        bargap=0.15,
        barmode="overlay",
        xaxis={
            "type": "category",  # as many names as the width holds
            "tickangle": -60,
            "tickfont": {"size": 10},
            "anchor": "y2",
            "showgrid": False,
        },
        yaxis={"domain": [0.55, 1.0], "range": [0, 105]},
        yaxis2={
            **axis,
            "domain": [0.0, 0.45],
            "range": [0, SHOWN_FLOAT + 0.8],
            "tickvals": [2, 4, 6, 8, SHOWN_FLOAT],
            "ticktext": ["2", "4", "6", "8", "32"],
            "title": {"text": "bits"},
        },
    )


def sensitivity_figure(
    sensitivities: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> go.Figure:
    """Plot what each change alone did to the predictions of plain int8, as a heat map.

    Args:
        sensitivities: Records with "kind", "part", "choice" and "divergence" in nats.
        order: Names of the layers in the order of the model; parts that are
            no layers follow the first layer inside them.
    """
    parts = list(dict.fromkeys(record["part"] for record in sensitivities))
    at = {name: number for number, name in enumerate(order)}

    def place(part: str) -> float:
        inside = [number for name, number in at.items() if name.startswith(f"{part}.")]
        return at.get(part, min(inside, default=len(at)) - 0.5)

    parts.sort(key=place)
    kinds = ("drop", "prune", "precision", "sparsity")
    choices = list(
        dict.fromkeys(
            record["choice"]
            for kind in kinds
            for record in sorted(
                (r for r in sensitivities if r["kind"] == kind),
                key=lambda r: _mildness(kind, r["choice"]),
            )
        )
    )
    table = np.full((len(parts), len(choices)), np.nan)
    for record in sensitivities:
        row, column = parts.index(record["part"]), choices.index(record["choice"])
        if np.isfinite(record["divergence"]):
            table[row, column] = record["divergence"]
    floor = 1e-6
    logs = np.log10(np.maximum(table, floor))
    known = logs[np.isfinite(logs)] if np.isfinite(logs).any() else np.zeros(1)
    ends = np.floor(known.min()), np.ceil(known.max())
    ticks = list(np.arange(ends[0], ends[1] + 1))
    figure = go.Figure()
    figure.add_heatmap(
        x=choices,
        y=parts,
        z=[[None if np.isnan(v) else round(float(v), 3) for v in row] for row in logs],
        customdata=[[None if np.isnan(v) else float(f"{v:.3g}") for v in row] for row in table],
        colorscale="YlOrRd",
        zmin=ends[0],
        zmax=max(ends[1], ends[0] + 1),
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": "nats"},
            "tickvals": ticks,
            "ticktext": [f"{10.0**tick:g}" for tick in ticks],
            "thickness": 12,
        },
        hovertemplate="%{y}, %{x}<br>%{customdata:.3g} nats<extra></extra>",
    )
    finished(figure, x="", y="")
    return figure.update_layout(
        height=max(300, 120 + 16 * len(parts)),
        xaxis={"tickangle": -45, "showgrid": False, "type": "category"},
        yaxis={
            "autorange": "reversed",
            "showgrid": False,
            "type": "category",
            "tickfont": {"size": 10},
            "dtick": 1,
        },
    )


def importance_figure(importances: Sequence[Importance]) -> go.Figure:
    """Plot what of each quantity the kinds of choices explain, as shares.

    Args:
        importances: Those that a forest explains.
    """
    figure = go.Figure()
    for kind in KINDS:
        shares = []
        for found in importances:
            total = sum(found.losses.values())
            shares.append(100.0 * found.losses.get(kind, 0.0) / total if total else 0.0)
        if any(kind in found.losses for found in importances):
            figure.add_bar(
                y=[quantity_words(found.quantity) for found in importances],
                x=shares,
                name=kind,
                orientation="h",
                marker={"color": KIND_COLOURS[kind]},
                hovertemplate=f"{kind}<br>%{{x:.0f}} % of %{{y}}<extra></extra>",
            )
    finished(figure, x="share of the importance (%)", y="")
    return figure.update_layout(barmode="stack", yaxis={"autorange": "reversed"})


def _mildness(kind: str, choice: str) -> float:
    """Order the choices of a kind from the mildest to the strongest."""
    if kind == "precision":
        weights, _, activations = choice.removeprefix("W").partition("A")
        return -100.0 * int(weights) - int(activations)
    return 0.0 if kind == "drop" else float(choice.split()[0].rstrip("%"))
