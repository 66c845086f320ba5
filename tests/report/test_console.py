import dataclasses
import io

import pytest
from rich.console import Console

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import MeasuredMember
from autocompress.report.console import artifact_table
from autocompress.report.summary import ArtifactRow, baseline_rows, member_rows

BASELINE = {
    "fp32": {
        "val_accuracy": 0.9031,
        "accuracy": 0.8986,
        "latency_ms": 1.612,
        "latency_ci95_ms": [1.6, 1.63],
        "size_bytes": 3_412_345,
    }
}

MEMBER = MeasuredMember(
    id="0007",
    candidate=Candidate(),
    predicted={"accuracy": 0.8842, "latency_ms": 0.911},
    measured={
        "val_accuracy": 0.8876,
        "accuracy": 0.8926,
        "latency_ms": 0.806,
        "latency_ci95_ms": [0.801, 0.812],
        "size_bytes": 612_000,
        "onnx_bytes": 59_200,
    },
    path="front/0007/model.onnx",
)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain_console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def cells(console: Console, id: str) -> list[str]:
    """Return what stands in the row of an artifact."""
    line = next(line for line in shown(console).splitlines() if id in line)
    return line.split()


def table_rows(*members: MeasuredMember) -> list[ArtifactRow]:
    return [*baseline_rows(BASELINE), *member_rows(members, "front", BASELINE)]


def test_the_table_shows_predictions_measurements_and_errors_apart() -> None:
    console = plain_console()
    console.print(artifact_table(table_rows(MEMBER)))
    assert cells(console, "original") == [
        *("original", "-", "90.31", "-", "89.86"),
        *("-", "1.612", "-", "0.9", "1.00", "3412", "-"),
    ]
    assert cells(console, "0007") == [
        *("0007", "88.42", "88.76", "+0.34", "89.26"),
        *("0.911", "0.806", "-11.5", "0.7", "0.50", "612", "59.2"),
    ]
    assert "error: measured minus predicted" in " ".join(shown(console).split())


@pytest.mark.parametrize(
    ("latency_ms", "size_bytes", "width"),
    [(0.0318, 23_000, 100), (0.806, 612_000, 80), (88.1, 45e6, 100), (1234.5, 400e6, 100)],
)
def test_the_table_fits_a_terminal_with_every_number_on_one_line(
    latency_ms: float, size_bytes: float, width: int
) -> None:
    measured = {
        "val_accuracy": 1.0,
        "accuracy": 1.0,
        "latency_ms": latency_ms,
        "latency_ci95_ms": [0.9 * latency_ms, 1.1 * latency_ms],
        "size_bytes": size_bytes,
        "onnx_bytes": 2 * size_bytes,
    }
    predicted = {"accuracy": 0.95, "latency_ms": 0.8 * latency_ms}
    member = dataclasses.replace(MEMBER, measured=measured, predicted=predicted)
    console = plain_console(width)
    console.print(artifact_table(table_rows(member)))
    assert max(map(len, shown(console).splitlines())) <= width
    row = cells(console, "0007")
    assert (row[3], row[7], row[8]) == ("+5.00", "+25.0", "10")
    assert float(row[6]) == pytest.approx(latency_ms)
    assert float(row[10]) == pytest.approx(size_bytes / 1000)
    assert float(row[11]) == pytest.approx(size_bytes / 500)


def test_a_title_says_what_the_table_shows() -> None:
    console = plain_console()
    console.print(artifact_table(table_rows(MEMBER), "No front; infeasible members"))
    assert "No front; infeasible members" in shown(console)


def test_a_narrow_terminal_cuts_no_number() -> None:
    console = plain_console(width=60)
    console.print(artifact_table(table_rows(MEMBER)))
    assert "…" not in shown(console)


def test_missing_values_are_dashes() -> None:
    console = plain_console()
    console.print(artifact_table(baseline_rows({"fp32": {"val_accuracy": 0.5}})))
    line = next(line for line in shown(console).splitlines() if "original" in line)
    assert line.split().count("-") == 10
