"""What a contest takes from a configuration, and how a method's recipe is carried out."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import autocompress as ac
from autocompress.config import load_config
from autocompress.contest import Contest, contest_of, export_original, run_method
from autocompress.controller.methods import METHODS
from autocompress.errors import InvalidInputError
from autocompress.evaluation.splits import data_digest, make_splits
from blobs import make_task, trained_model

USER = """
from blobs import make_task, trained_model

def make_model():
    return trained_model(make_task())
"""


def configuration(folder: Path, **budget: float) -> Path:
    (folder / "contest_user.py").write_text(USER)
    record = {
        "model": {"factory": "contest_user:make_model"},
        "task": {"factory": "contest_user:make_task"},
        "space": "mlp",
        "budget": budget,
        "objectives": ["accuracy", "size_bytes"],
        "constraints": {"accuracy_drop": 0.1},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


def test_a_contest_gives_every_method_what_the_file_says(tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path, minutes=2.0, trials=7, finalists=2))
    contest = contest_of(config, tmp_path / "contest")
    assert (contest.minutes, contest.trials, contest.finalists) == (2.0, 7, 2)
    assert contest.objectives == ("accuracy", "size_bytes")
    assert contest.constraints == {"accuracy_drop": 0.1}
    assert contest.resolved.name == "onnxruntime-cpu"
    budget = contest.budget(0.5, None)
    assert (budget.minutes, budget.trials, budget.finalists) == (0.5, None, 2)


def test_a_budget_without_minutes_is_refused(tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path, trials=7))
    with pytest.raises(InvalidInputError, match="give --minutes"):
        contest_of(config, tmp_path)


def test_the_original_is_written_once_and_quantised_by_the_runtime(tmp_path: Path) -> None:
    task = make_task()
    contest = Contest(model=trained_model(task), task=task, folder=tmp_path, space="mlp")
    original = export_original(contest)
    written = original.stat().st_mtime_ns
    assert export_original(contest) == original == tmp_path / "original.onnx"
    assert original.stat().st_mtime_ns == written
    (int8,) = run_method(contest, METHODS["int8"], tmp_path / "int8", seed=0)
    assert int8.is_file()
    assert b"QuantizeLinear" in int8.read_bytes()
    assert b"QuantizeLinear" not in original.read_bytes()


def test_only_onnx_files_are_quantised_by_the_runtime(tmp_path: Path) -> None:
    task = make_task()
    contest = Contest(
        model=trained_model(task), task=task, folder=tmp_path, space="mlp", target="torch-cpu"
    )
    with pytest.raises(InvalidInputError, match="leave out int8"):
        run_method(contest, METHODS["int8"], tmp_path / "int8", seed=0)


def test_all_seeds_are_judged_by_the_same_halves_of_val(tmp_path: Path) -> None:
    task = make_task()
    whole = Contest(model=trained_model(task), task=task, folder=tmp_path, space="mlp")
    assert whole.judged is task
    halved = replace(whole, task=ac.Task(train=task.train, val=task.val))
    splits = [make_splits(halved.judged, seed=seed) for seed in (0, 1)]
    digests = {data_digest(found.test) for found in splits}
    assert digests == {data_digest(make_splits(halved.task, seed=0).test)}
    assert data_digest(splits[0].val) == data_digest(splits[1].val)
