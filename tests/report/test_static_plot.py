import sys

import pytest

from autocompress.errors import MissingExtraError
from autocompress.report.static_plot import matplotlib_figure
from autocompress.report.summary import ArtifactRow


def row(name: str, kind: str, val: float, latency: float | None, **measured: object) -> ArtifactRow:
    timed = {} if latency is None else {"latency_ms": latency}
    return ArtifactRow(
        id=name,
        kind=kind,
        done="nothing",
        predicted={},
        measured={"val_accuracy": val, **timed, **measured},
        latency_ratio=1.0,
    )


def test_each_kind_is_drawn_where_it_was_measured() -> None:
    pytest.importorskip("matplotlib")
    rows = [
        row("original", "baseline", 0.9, 2.0),
        row("0001", "front", 0.89, 1.0, accuracy=0.87, latency_ci95_ms=[0.9, 1.2]),
        row("0002", "infeasible", 0.5, 0.1),
        row("0003", "infeasible", 0.4, None),
    ]
    axes = matplotlib_figure(rows, "latency_ms").axes[0]
    drawn = {str(shown.get_label()): shown.get_offsets() for shown in axes.collections}
    assert set(drawn) == {"baselines, val", "front, val", "front, test", "infeasible, val"}
    assert drawn["front, val"].tolist() == [[1.0, 89.0]]  # type: ignore[union-attr]
    assert drawn["front, test"].tolist() == [[1.0, 87.0]]  # type: ignore[union-attr]
    assert drawn["infeasible, val"].tolist() == [[0.1, 50.0]]  # type: ignore[union-attr]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.9, 1.2]]  # type: ignore[union-attr]
    assert axes.get_xlabel() == "latency (ms)"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'autocompress\[plots\]'"):
        matplotlib_figure([], "latency_ms")
