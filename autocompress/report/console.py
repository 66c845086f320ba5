"""The front in a terminal, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from autocompress.report.summary import ArtifactRow, measured_words


def artifact_table(rows: Sequence[ArtifactRow], title: str = "") -> Table:
    """Lay out artifacts, at most 100 columns wide.

    Args:
        rows: Baselines first; a rule sets them apart.
        title: Stands above the table.

    Returns:
        A table; accuracies in percent, predictions beside measurements.
    """
    table = Table(
        title=title or None,
        title_justify="left",
        caption=(
            f"pred: predicted before the artifact existed; {measured_words(rows)}. "
            "error: measured minus predicted, in points of accuracy and in percent of the "
            "predicted latency. \N{PLUS-MINUS SIGN} %: half of the 95 % interval. kB: of the "
            "packed weights, and of the ONNX file. Choices saw val only, never test."
        ),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("id", overflow="fold", no_wrap=True)
    for header in (
        *("val %\npred", "val %", "error\npts", "test\n%"),
        *("ms\npred", "ms", "error\n%", "\N{PLUS-MINUS SIGN} %", "x\nfp32"),
        *("kB", "onnx\nkB"),
    ):
        table.add_column(header, justify="right", overflow="fold")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        measured, predicted = row.measured, row.predicted
        table.add_row(
            row.id,
            _number(predicted.get("accuracy"), scale=100, digits=2),
            _number(measured.get("val_accuracy"), scale=100, digits=2),
            _number(row.accuracy_error, scale=100, digits=2, sign="+"),
            _number(measured.get("accuracy"), scale=100, digits=2),
            _latency(predicted.get("latency_ms")),
            _latency(measured.get("latency_ms")),
            _number(row.latency_error, scale=100, digits=1, sign="+"),
            _spread(_half_width(measured)),
            _number(row.latency_ratio, digits=2),
            _size(measured.get("size_bytes")),
            _size(measured.get("onnx_bytes")),
            end_section=row.kind == "baseline"
            and following is not None
            and following.kind != "baseline",
        )
    return table


def _number(value: float | None, *, scale: float = 1.0, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{scale * value:{sign}.{digits}f}"


def _half_width(measured: Mapping[str, Any]) -> float | None:
    """Return half of the 95 % interval of a latency, as a fraction of the latency."""
    interval, latency = measured.get("latency_ci95_ms"), measured.get("latency_ms")
    return (interval[1] - interval[0]) / 2 / latency if interval and latency else None


def _latency(value: float | None) -> str:
    """Write milliseconds with three digits, one more below 0.1 ms, fewer from 100 ms on."""
    small, large = value is not None and value < 0.1, value is not None and value >= 100.0
    return _number(value, digits=4 if small else 1 if large else 3)


def _spread(value: float | None) -> str:
    """Write percent with one digit, none from 10 % on."""
    return _number(value, scale=100, digits=1 if value is not None and value < 0.0995 else 0)


def _size(value: float | None) -> str:
    """Write kilobytes with one digit, none from 100 kB on."""
    return _number(value, scale=1e-3, digits=1 if value is not None and value < 1e5 else 0)
