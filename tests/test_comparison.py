"""Cells run once, failures are kept with their reason, and all files are measured together."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autocompress as ac
from autocompress import api, comparison
from autocompress.comparison import benchmark, claim
from autocompress.contest import Contest, export_original
from autocompress.controller.ledger import Ledger
from autocompress.controller.methods import METHODS
from autocompress.core.files import read_json
from autocompress.errors import ExportError, InvalidInputError, StudyError
from blobs import make_task, trained_model


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    task = make_task()
    made = Contest(
        model=trained_model(task),
        task=task,
        folder=tmp_path_factory.mktemp("contest"),
        minutes=1.0,
        space="mlp",
    )
    export_original(made)
    return made


class Searches:
    """Stands for `search`: each call makes one member, a copy of the original's file."""

    def __init__(self, original: Path) -> None:
        self.original = original
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model: object, task: object, **given: Any) -> SimpleNamespace:
        self.calls.append(given)
        path = given["study_dir"] / "front" / "0001" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.original, path)
        if given["study_dir"].name == "prune":
            _leave_study(given["study_dir"])
        member = SimpleNamespace(path=path, candidate=ac.Candidate())
        return SimpleNamespace(front=[member], members=[member])


def _leave_study(folder: Path) -> None:
    """Leave what the first step of a sequential run hands on, once."""
    if not (folder / "study.db").is_file():
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "00003.safetensors").write_bytes(b"weights")
        ledger = Ledger.open(folder / "study.db", metric_names=["loss"], identity={}, seed=0)
        ledger.set("baseline_s", 30.0)
        ledger.close()


@pytest.fixture
def searches(contest: Contest, monkeypatch: pytest.MonkeyPatch) -> Searches:
    stub = Searches(contest.folder / "original.onnx")
    monkeypatch.setattr(api, "search", stub)
    return stub


def test_methods_run_once_and_all_files_are_measured_together(
    contest: Contest, searches: Searches
) -> None:
    said: list[str] = []
    found = benchmark(contest, seeds=(0, 1), measuring_seconds=0.2, on_message=said.append)
    assert found == read_json(contest.folder / "comparison.json")
    assert found["failed"] == []
    points = found["points"]
    assert [p["method"] for p in points[:2]] == ["original", "joint"]
    assert len(points) == 1 + 2 * 5
    assert all(len(values) == 2 for values in found["hypervolume"].values())
    fp32, int8 = points[0], next(p for p in points if p["method"] == "int8")
    assert fp32["accuracy"] > 0.9
    assert abs(fp32["accuracy"] - int8["accuracy"]) < 0.03
    assert int8["file_bytes"] != fp32["file_bytes"]
    assert found["joint_minus"]["uniform"]["low"] <= found["joint_minus"]["uniform"]["high"]
    calls = len(searches.calls)
    assert calls == 2 * 5  # joint, random, two steps of sequential, uniform
    benchmark(contest, seeds=(0, 1), measuring_seconds=0.2)
    assert len(searches.calls) == calls


def test_switches_and_given_candidates_reach_the_search(
    contest: Contest, searches: Searches
) -> None:
    for name in ("random", "sequential", "uniform"):
        comparison.run_method(contest, METHODS[name], contest.folder / "x", 3)
    random, prune, distil, uniform = searches.calls
    assert random["sampler"] == "random"
    (start,) = random["designs"]  # nothing but what every search begins with
    assert start.pruning_ratios == {}
    assert set(start.weight_bits().values()) == {8}
    assert random["budget"] == ac.Budget(minutes=1.0)
    assert prune["budget"] == ac.Budget(minutes=0.5)
    assert prune["space"].quantisation.weight_bits == (32,)
    assert prune["space"].distillation.kd_weight.high == 0.0
    assert distil["space"].distillation.kd_weight.low == 0.9
    assert distil["target"] == contest.folder / "x" / "prune" / "profile.json"
    assert distil["budget"] == ac.Budget(minutes=1.0, trials=2)  # the baselines' time is beside it
    handed = contest.folder / "x" / "distil" / "checkpoints" / "pruned-00003.safetensors"
    assert handed.read_bytes() == b"weights"
    (given,) = distil["designs"]
    assert {config.weight_bits for config in given.layers.values()} == {8}
    ratios = ac.SearchSpace.load("mlp").pruning.ratios
    assert 1 < len(uniform["designs"]) <= len(ratios)
    for candidate in uniform["designs"]:
        assert {config.weight_bits for config in candidate.layers.values()} == {8}
        assert len(set(candidate.pruning_ratios.values())) <= 1
    assert uniform["seed"] == 3


def test_what_fails_is_told_and_tried_again(
    contest: Contest, searches: Searches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExportError("no such file")

    with monkeypatch.context() as patch:
        patch.setattr(api, "search", refuse)
        found = benchmark(contest, methods=("no-blocks",), measuring_seconds=0.1)
    assert found["failed"][0]["error"] == "ExportError: no such file"
    again = benchmark(contest, methods=("no-blocks",), measuring_seconds=0.1)
    assert again["failed"] == []
    assert {"original", "no-blocks"} <= {point["method"] for point in again["points"]}


def test_further_methods_join_and_are_measured_with_those_that_are_there(
    contest: Contest, searches: Searches
) -> None:
    benchmark(contest, methods=("int8",), measuring_seconds=0.1)
    found = benchmark(contest, methods=("random",), measuring_seconds=0.1)
    assert {"int8", "random"} <= set(found["hypervolume"])


def test_other_data_and_a_device_that_is_not_here_are_refused(
    contest: Contest, searches: Searches
) -> None:
    benchmark(contest, methods=("int8",), measuring_seconds=0.1)
    shifted = ac.Task(train=contest.task.train, val=[(x, (y + 1) % 4) for x, y in contest.task.val])
    with pytest.raises(StudyError, match="another data"):
        benchmark(dataclasses.replace(contest, task=shifted), methods=("int8",))
    with pytest.raises(InvalidInputError, match="cuda"):
        benchmark(dataclasses.replace(contest, device="cuda"), methods=("int8",))


def test_another_budget_or_method_is_refused(contest: Contest, searches: Searches) -> None:
    benchmark(contest, methods=("joint",), measuring_seconds=0.1)
    longer = Contest(
        model=contest.model, task=contest.task, folder=contest.folder, minutes=2.0, space="mlp"
    )
    with pytest.raises(StudyError, match="another minutes"):
        benchmark(longer, methods=("joint",))
    with pytest.raises(InvalidInputError, match="did you mean 'joint'"):
        benchmark(contest, methods=("joins",))
    assert json.loads((contest.folder / "contest.json").read_text())["minutes"] == 1.0


class _Several(nn.Module):
    """Returns features beside what is scored."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": -x, "logits": self.inner(x)}


def test_of_several_outputs_the_right_one_is_scored(tmp_path: Path, contest: Contest) -> None:
    expected = benchmark(contest, methods=("int8",), measuring_seconds=0.1)["points"][0]
    task = ac.Task(
        train=contest.task.train,
        val=contest.task.val,
        test=contest.task.test,
        forward=lambda model, batch: model(batch[0])["logits"],
    )
    several = dataclasses.replace(
        contest, model=_Several(contest.model).eval(), task=task, folder=tmp_path
    )
    found = benchmark(several, methods=("int8",), measuring_seconds=0.1)
    assert found["points"][0]["accuracy"] == expected["accuracy"] > 0.5
    assert found["points"][1]["accuracy"] > 0.5
    assert found["points"][1]["ratio_ci95"] is not None


def test_loaders_that_shuffle_are_known_again_and_other_training_data_is_refused(
    tmp_path: Path, contest: Contest
) -> None:
    inputs, labels = (torch.cat(parts) for parts in zip(*contest.task.val, strict=True))
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)
    task = ac.Task(train=contest.task.train, val=loader, test=loader)
    shuffled = dataclasses.replace(contest, task=task, folder=tmp_path)
    claim(shuffled)
    claim(dataclasses.replace(shuffled))
    other = ac.Task(train=contest.task.train[:3], val=loader, test=loader)
    with pytest.raises(StudyError, match="another train"):
        claim(dataclasses.replace(shuffled, task=other))
    with pytest.raises(StudyError, match="another teachers"):
        claim(dataclasses.replace(shuffled, teachers=(contest.model,)))
