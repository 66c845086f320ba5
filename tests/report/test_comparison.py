"""The table of a comparison."""

from rich.console import Console

from autocompress.core.comparison import Point
from autocompress.report.comparison import comparison_table, fastest, interval


def point(method: str, val: float, test: float, ms: float) -> Point:
    return Point(
        method=method,
        seed=0,
        name="0001",
        path="x.onnx",
        val_accuracy=val,
        accuracy=test,
        latency_ms=ms,
        latency_ci95_ms=(ms, ms),
        reference_ms=2.0,
        file_bytes=1000,
    )


BASELINE = point("original", 0.9, 0.91, 2.0)


def test_the_fastest_within_a_loss_is_told_with_its_accuracy_on_test() -> None:
    points = [point("joint", 0.895, 0.90, 1.0), point("joint", 0.88, 0.87, 0.5)]
    assert fastest(points, BASELINE, 0.01) == "0.50x 90.0"
    assert fastest(points, BASELINE, 0.02) == "0.25x 87.0"
    assert fastest(points, BASELINE, 0.0) == "none"


def test_the_table_shows_every_method_and_every_failure() -> None:
    points = [BASELINE, point("joint", 0.9, 0.9, 1.0), point("int8", 0.89, 0.9, 1.2)]
    record = {
        "points": [p.to_json() for p in points],
        "titles": {"joint": "joint search"},
        "hypervolume": {"joint": [0.5, 0.6], "int8": [0.4, 0.4]},
        "joint_minus": {"int8": {"mean": 0.15, "low": 0.1, "high": 0.2}},
        "failed": [{"method": "uniform", "seed": 0, "error": "ExportError: no"}],
    }
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(comparison_table(record))
    text = shown.get()
    assert "joint search" in text
    assert "0.550 (0.525 to 0.575)" in text
    assert "+0.150 (+0.100 to +0.200)" in text
    assert "uniform, seed 0: ExportError: no" in text


def test_no_interval_is_no_text() -> None:
    assert interval(None) == ""
