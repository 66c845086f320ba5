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


def test_the_tables_have_predictions_beside_measurements() -> None:
    text = render_markdown(
        [ROW], [], ["latency_ms"], constraints="size_bytes <= 1", notes=["a\nnote"], environment={}
    )
    (line,) = [line for line in text.splitlines() if line.startswith("| 0001")]
    cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
    assert cells == [
        *("0001", "front", "88.00", "89.00", "86.91 to 90.79", "87.00"),
        *("1.1", "1", "0.50", "W8 A8 / a &lt; b"),
    ]
    assert "Constraints: size_bytes <= 1." in text
    assert "* a note" in text
    assert "Not on the front" not in text
