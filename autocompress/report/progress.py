"""How the trials went on, for the report: rank correlations, and hypervolume with its outlook."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from autocompress.report.figures import FRONT_COLOUR, TEST_COLOUR, TRIAL_COLOUR, finished


def hypervolume_figure(outlook: Mapping[str, Any]) -> go.Figure:
    """Plot hypervolume, in percent of what the trials reached, and where it is heading.

    Args:
        outlook: "curve", one value per trial; "more", trials ahead; and where
            they could be told, "expected", "low" and "high" after those.
    """
    unit = 0.01 * (outlook["curve"][-1] or 1.0) if outlook["curve"] else 1.0
    curve = [value / unit for value in outlook["curve"]]
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(curve) + 1)),
        y=curve,
        name="so far",
        mode="lines",
        line={"color": FRONT_COLOUR, "width": 2, "shape": "hv"},
        hovertemplate="after %{x} trials<br>%{y:.4g} %<extra></extra>",
    )
    if "high" in outlook:
        expected, low, high = (outlook[key] / unit for key in ("expected", "low", "high"))
        figure.add_scatter(
            x=[len(curve), len(curve) + outlook["more"]],
            y=[curve[-1], expected],
            name="expected",
            mode="lines",
            line={"color": TRIAL_COLOUR, "dash": "dot", "width": 2},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0.0, high - expected],
                "arrayminus": [0.0, expected - low],
                "color": TRIAL_COLOUR,
            },
            hovertemplate="after %{x} trials<br>%{y:.4g} % expected<extra></extra>",
        )
    finished(figure, x="trials", y="hypervolume, as predicted (%)")
    last = len(curve) + (outlook["more"] if "high" in outlook else 0)
    return figure.update_xaxes(range=[0.0, 1.04 * last])


def correlation_figure(rounds: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Plot how well each fit of the predictor ranked trials that it had not seen.

    Args:
        rounds: In order, each with "trials" and "rank_correlations".
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[found["trials"] for found in rounds],
        y=[next(iter(found["rank_correlations"].values()), None) for found in rounds],
        name="accuracy",
        mode="lines+markers",
        line={"color": TEST_COLOUR, "width": 2},
        hovertemplate="fitted to %{x} trials<br>tau %{y:.2f}<extra></extra>",
    )
    return finished(figure, x="trials", y="Kendall's tau of left-out trials")
