"""The table of a comparison."""

from rich.console import Console

from autocompress.controller.methods import METHODS
from autocompress.core.comparison import Point
from autocompress.report.comparison import comparison_tables, fastest, interval, median_seed


def point(method: str, val: float, test: float, ms: float, seed: int = 0) -> Point:
    return Point(
        method=method,
        seed=seed,
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


def test_the_tables_show_every_method_and_every_failure_within_100_columns() -> None:
    names = ["joint", "sequential", "uniform", "int8"]
    points = [point(name, 0.9, 0.9, 1.0, seed) for name in names for seed in (0, 1)]
    record = {
        "points": [p.to_json() for p in (BASELINE, *points)],
        "titles": {name: METHODS[name].title for name in names if name in METHODS},
        "hypervolume": {name: [0.5, 0.6] for name in names},
        "joint_minus": {name: {"mean": 0.15, "low": 0.1, "high": 0.2} for name in names[1:]},
        "failed": [{"method": "random", "seed": 0, "error": "ExportError: no [bold]"}],
    }
    console = Console(width=100)
    with console.capture() as shown:
        console.print(comparison_tables(record))
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) < 30, "a title takes two lines at most"
    text = "\n".join(lines)
    assert text.count("0.550 (0.525 to 0.575)") == len(names)
    assert text.count("+0.150 (+0.100 to +0.200)") == len(names) - 1
    assert text.count("0.50x 90.0") == 3 * len(names)
    assert lines[-1] == "random, seed 0, failed: ExportError: no [bold]"


def test_the_fastest_file_is_that_of_the_median_seed() -> None:
    points = [point("joint", 0.9, 0.9, ms, seed) for seed, ms in enumerate((1.2, 0.4, 1.0))]
    chosen = median_seed([BASELINE, *points], BASELINE, 0.0)
    assert [(p.method, p.seed) for p in chosen] == [("original", 0), ("joint", 2)]
    assert median_seed([BASELINE], BASELINE, 0.0) == [BASELINE]


def test_no_interval_is_no_text() -> None:
    assert interval(None) == ""
