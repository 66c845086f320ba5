import dataclasses

import pytest

from autocompress.core.objective import COSTS
from autocompress.report.figures import COST_AXES, front_figure, prediction_figure
from autocompress.report.summary import ArtifactRow

ORIGINAL = ArtifactRow(
    id="original",
    kind="baseline",
    done="nothing",
    predicted={},
    measured={"val_accuracy": 0.9, "latency_ms": 2.0, "latency_ci95_ms": [1.9, 2.2]},
    latency_ratio=1.0,
)
MEMBER = ArtifactRow(
    id="0001",
    kind="front",
    done="W8 A8",
    predicted={"accuracy": 0.88, "latency_ms": 1.1},
    measured={
        "val_accuracy": 0.89,
        "accuracy": 0.87,
        "latency_ms": 1.0,
        "latency_ci95_ms": [0.98, 1.01],
        "size_bytes": 5000,
    },
    latency_ratio=0.5,
)
TRIALS = [
    {"predicted_accuracy": 0.8, "latency_ms_predicted": 1.5},
    {"predicted_accuracy": None, "latency_ms_predicted": 1.5},
    {"state": "fail"},
]


def test_every_cost_has_an_axis_with_a_unit() -> None:
    assert set(COST_AXES) == set(COSTS)
    assert all("(" in title for title, _ in COST_AXES.values())


def test_the_front_has_val_test_baseline_and_predicted_trials() -> None:
    figure = front_figure([ORIGINAL, MEMBER], TRIALS, "latency_ms")
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {
        *("trials, predicted", "front, val", "front, test", "original, val"),
        "chosen member",
    }
    assert traces["front, val"].y[0] == pytest.approx(89.0)
    assert traces["front, test"].y[0] == pytest.approx(87.0)
    assert list(traces["trials, predicted"].x) == [1.5]
    assert figure.layout.xaxis.title.text == "latency (ms)"
    assert figure.layout.yaxis.title.text == "accuracy (%)"


def test_dense_scaling_is_a_line_through_the_uniformly_narrowed_trials() -> None:
    def trial(origin: str, layers: int, ratio: float, accuracy: float) -> dict[str, object]:
        return {
            "origin": origin,
            "quantised_layers": layers,
            "mean_pruning_ratio": ratio,
            "predicted_accuracy": accuracy,
            "latency_ms_predicted": 1.0 - ratio,
        }

    trials = [
        trial("unmodified", 0, 0.0, 0.95),
        trial("uniform pruning", 3, 0.5, 0.7),
        trial("plain int8", 3, 0.0, 0.9),
        trial("uniform pruning", 3, 0.25, 0.8),
        trial("joint", 3, 0.3, 0.85),
    ]
    lines = [t for t in front_figure([ORIGINAL], trials, "latency_ms").data if "dense" in t.name]
    assert [line.name for line in lines] == ["dense int8, predicted"]
    assert list(lines[0].x) == pytest.approx([1.0, 0.75, 0.5])
    assert list(lines[0].y) == pytest.approx([90.0, 80.0, 70.0])


def test_members_off_the_front_are_drawn_apart() -> None:
    others = [
        dataclasses.replace(MEMBER, id="0002", kind="dominated"),
        dataclasses.replace(MEMBER, id="0003", kind="infeasible"),
    ]
    figure = front_figure([ORIGINAL, *others], [], "latency_ms")
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"dominated, val", "infeasible, val", "original, val", "chosen member"}
    assert list(traces["infeasible, val"].text) == ["0003"]
    assert traces["infeasible, val"].marker.symbol != traces["dominated, val"].marker.symbol


def test_error_bars_are_the_measured_interval() -> None:
    figure = front_figure([ORIGINAL], [], "latency_ms")
    bars = next(trace for trace in figure.data if trace.name == "original, val").error_x
    assert bars.array[0] == pytest.approx(0.2)
    assert bars.arrayminus[0] == pytest.approx(0.1)


def test_costs_are_scaled_to_the_unit_of_their_axis() -> None:
    figure = front_figure([ORIGINAL, MEMBER], [], "size_bytes")
    traces = {trace.name: trace for trace in figure.data}
    assert "original, val" not in traces, "its size is unknown"
    assert list(traces["front, val"].x) == [5.0]


def test_predictions_are_on_x_and_measurements_on_y() -> None:
    line, points = prediction_figure([ORIGINAL, MEMBER], "accuracy").data
    assert points.x[0] == pytest.approx(88.0)
    assert points.y[0] == pytest.approx(89.0)
    assert list(line.x) == list(line.y) == pytest.approx([88.0, 89.0])


def test_without_predictions_the_plot_is_empty() -> None:
    _, points = prediction_figure([ORIGINAL], "latency_ms").data
    assert list(points.x) == []
