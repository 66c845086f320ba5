import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autocompress import comparison
from autocompress.contest import Contest
from autocompress.core.comparison import Point
from stand_in import invoke


def point(method: str, accuracy: float, ms: float) -> dict[str, Any]:
    return Point(
        method=method,
        seed=0,
        name="0001",
        path=f"{method}.onnx",
        val_accuracy=accuracy,
        accuracy=accuracy,
        latency_ms=ms,
        latency_ci95_ms=(ms, ms),
        reference_ms=2.0,
        file_bytes=1000,
    ).to_json()


RECORD: dict[str, Any] = {
    "points": [point("original", 0.9, 2.0), point("joint", 0.9, 0.5)],
    "hypervolume": {"joint": [0.75]},
    "joint_minus": {},
    "titles": {"joint": "joint search"},
    "failed": [],
}


class Compared:
    """Stands for the comparison: keeps what it was asked, and says one line."""

    def __init__(self) -> None:
        self.contests: list[Contest] = []
        self.given: list[dict[str, Any]] = []

    def __call__(self, contest: Contest, *, on_message: Any, **given: Any) -> dict[str, Any]:
        on_message("joint, seed 0: joint search")
        self.contests.append(contest)
        self.given.append(given)
        return RECORD


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    stub = Compared()
    monkeypatch.setattr(comparison, "benchmark", stub)
    return stub


def test_methods_seeds_and_minutes_are_passed_on(
    compared: Compared, config: Path, tmp_path: Path
) -> None:
    options: Sequence[object] = ("--methods", "joint,int8", "--seeds", 2, "--minutes", 0.5)
    result = invoke("benchmark", config, "--folder", tmp_path / "all", *options)
    assert result.exit_code == 0, result.output
    assert compared.given == [{"methods": ["joint", "int8"], "seeds": range(2)}]
    (contest,) = compared.contests
    assert (contest.minutes, contest.folder) == (0.5, tmp_path / "all")
    lines = result.stdout.splitlines()
    assert lines[0] == "joint, seed 0: joint search"
    assert "joint search" in result.stdout
    assert "0.750" in result.stdout
    assert "0.25x 90.0" in result.stdout
    assert lines[-1] == f"files and figures: {tmp_path / 'all' / 'comparison.json'}"


def test_json_is_all_that_is_written(compared: Compared, config: Path, tmp_path: Path) -> None:
    result = invoke("benchmark", config, "--folder", tmp_path / "all", "--json")
    assert json.loads(result.stdout) == RECORD
    assert result.stderr == "joint, seed 0: joint search\n"
    assert (
        invoke("benchmark", config, "--folder", tmp_path / "all", "--json", "--quiet").stderr == ""
    )


def test_a_comparison_in_which_all_fails_has_failed(
    compared: Compared, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = {"method": "joint", "seed": 0, "error": "write [accuracy]"}
    nothing = RECORD | {"points": RECORD["points"][:1], "hypervolume": {}, "failed": [failed]}
    monkeypatch.setattr(comparison, "benchmark", lambda *_, **__: nothing)
    result = invoke("benchmark", config, "--folder", tmp_path / "all")
    assert result.exit_code == 1
    assert "write [accuracy]" in " ".join(result.stdout.split())


def test_an_unknown_method_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, config: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(comparison, "claim", lambda _: pytest.fail("nothing is written"))
    words = ("benchmark", config, "--folder", tmp_path / "all", "--methods", "jiont")
    result = invoke(*words)
    assert result.exit_code == 2
    assert "did you mean 'joint'" in result.stderr
    assert not (tmp_path / "all").exists()
