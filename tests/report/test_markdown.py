from typing import Any

from autocompress.report.markdown import render_markdown
from autocompress.report.summary import ArtifactRow

ROW = ArtifactRow(
    id="0001",
    kind="front",
    done="W8 A8 | a < b",
    predicted={"accuracy": 0.88, "latency_ms": 1.1},
    measured={"val_accuracy": 0.89, "val_images": 1000, "accuracy": 0.87, "latency_ms": 1.0},
    latency_ratio=0.5,
)


def render(constraints: str = "", **parts: Any) -> str:
    values: dict[str, Any] = {
        **{"lessons": [], "failures": {}, "finalist_failures": {}, "notes": [], "environment": {}},
        **parts,
    }
    return render_markdown([ROW], [], ["latency_ms"], constraints=constraints, **values)


def test_the_tables_have_predictions_beside_measurements() -> None:
    text = render("size_bytes <= 1", notes=["a\nnote"])
    (line,) = [line for line in text.splitlines() if line.startswith("| 0001")]
    cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
    assert cells == [
        *("0001", "front", "88.00", "89.00", "86.91 to 90.79", "87.00"),
        *("1.1", "1", "0.50", "W8 A8 / a &lt; b"),
    ]
    assert "Constraints: size_bytes <= 1." in text
    assert "* a note" in text
    for title in ("Not on the front", "Distillation", "Failures"):
        assert f"## {title}" not in text


def test_distillations_and_failures_have_tables_of_their_own() -> None:
    text = render(
        lessons=[["kind", "temperature"], ["pruned", "4"]],
        failures={"a < b": 2},
        finalist_failures={"0043": "no space", "0042": "x | y"},
    )
    assert "before any export.\n\n| kind | temperature |\n|---|---|\n| pruned | 4 |\n" in text
    trials, finalists = text.split("## Failures\n\n")[1].split("\n\n")[:2]
    assert trials.splitlines()[2:] == ["| 2 | a &lt; b |"]
    assert finalists.splitlines()[2:] == ["| 0042 | x \\| y |", "| 0043 | no space |"]
