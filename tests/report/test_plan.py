import json
from pathlib import Path

from autocompress.controller.preflight import report_on
from autocompress.core.budget import Budget
from autocompress.report.plan import SearchPlan
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph


def plan(tmp_path: Path, budget: Budget) -> SearchPlan:
    found = report_on(residual_graph(), SearchSpace.load("cnn"), 90.0)
    return SearchPlan.of(found, budget, str(tmp_path / "not" / "there"))


def test_every_stage_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    made = plan(tmp_path, Budget(trials=40, minutes=10))
    stages = dict(made.stages)
    assert list(stages) == ["baseline", "profile", "sensitivity", "trials", "finalists", "measure"]
    assert "40 candidates, within 6 of the minutes" in stages["trials"]
    assert not (tmp_path / "not").exists()
    record = json.loads(json.dumps(made.to_dict()))
    assert record["seconds_estimate"] == 90.0
    assert 0 < record["disk_bytes_estimate"] < record["free_bytes"]


def test_more_trials_need_more_disk(tmp_path: Path) -> None:
    few, many = (plan(tmp_path, Budget(trials=count)).disk_bytes for count in (10, 1000))
    assert few < many


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    made = plan(tmp_path, Budget(minutes=5))
    assert "NOT ENOUGH" not in made.disk()
    full = SearchPlan(
        study_dir="s", stages=(), seconds=None, disk_bytes=2_000_000, free_bytes=1_000_000
    )
    assert full.disk() == "disk: up to 2 MB of 1 MB that are free; NOT ENOUGH"
