from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from autocompress.cli.results import result_json
from autocompress.core.candidate import Candidate
from autocompress.result import SearchResult


def member(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        id=name,
        candidate=Candidate(dropped_blocks=("block",)),
        predicted={"accuracy": 0.9},
        measured={"val_accuracy": 0.8, "latency_ms": 1.0, "latency_samples_ms": [1.0] * 1000},
        path=Path("runs") / name,
    )


def test_every_member_is_listed_where_it_stands_without_raw_samples() -> None:
    best, beaten, missed = member("0001"), member("0002"), member("0003")
    result = SimpleNamespace(
        study_dir=Path("runs"),
        constraints={"accuracy_drop": 0.1},
        baseline={"fp32": {"latency_ms": 2.0, "latency_samples_ms": [2.0]}},
        members=[best, beaten, missed],
        front=[best],
        nearest_infeasible=[missed],
    )
    found: dict[str, Any] = result_json(cast(SearchResult, result))
    standing = {
        kind: [m["id"] for m in found[kind]] for kind in ("front", "dominated", "infeasible")
    }
    assert standing == {"front": ["0001"], "dominated": ["0002"], "infeasible": ["0003"]}
    assert found["front"][0] == {
        "id": "0001",
        "done": "1 block dropped",
        "predicted": {"accuracy": 0.9},
        "measured": {"val_accuracy": 0.8, "latency_ms": 1.0},
        "path": "runs/0001",
    }
    assert found["baseline"] == {"fp32": {"latency_ms": 2.0}}
    assert found["constraints"] == {"accuracy_drop": 0.1}
