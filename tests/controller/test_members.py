"""Members: the split into front and others, and refusal of files that are wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.controller import members
from autocompress.controller.members import (
    MemberStore,
    read_members,
    split_front,
    timed_with,
    write_front,
)
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import MeasuredMember
from autocompress.core.files import read_json
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.target import Target
from autocompress.errors import ExportError
from autocompress.evaluation.splits import make_splits
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from zoo import PlainNet

BASELINE = {"accuracy": 0.9, "latency_ms": 1.0}
OBJECTIVES = parse_objectives(["accuracy", "latency_ms"])


def _member(name: str, val: float, latency: float, test: float = 0.5) -> MeasuredMember:
    return MeasuredMember(
        id=name,
        candidate=Candidate(),
        predicted={},
        measured={"val_accuracy": val, "accuracy": test, "latency_ms": latency},
        path=f"front/{name}/model.onnx",
    )


MEMBERS = [
    _member("a", 0.90, 1.0),
    _member("b", 0.89, 0.5, test=0.1),
    _member("c", 0.88, 0.6, test=0.9),
    _member("d", 0.80, 0.2),
]


def test_the_front_is_feasible_and_non_dominated_on_val() -> None:
    constraints = parse_constraints({"accuracy_drop": 0.05})
    front, others = split_front(MEMBERS, OBJECTIVES, constraints, BASELINE)
    assert [member.id for member in front] == ["a", "b"]  # c leads on test only
    assert [member.id for member in others] == ["c", "d"]


def test_where_nothing_is_feasible_the_nearest_comes_first() -> None:
    constraints = parse_constraints({"accuracy": 0.95})
    front, others = split_front(MEMBERS, OBJECTIVES, constraints, BASELINE)
    assert front == []
    assert [member.id for member in others] == ["a", "b", "c", "d"]


def test_a_latency_of_another_run_is_scaled_by_the_originals() -> None:
    """The original took 2 ms beside the member, and takes 3 ms now: the host is slower."""
    timed = {"latency_ci95_ms": [0.9, 1.2], "latency_reference_ms": 2.0}
    found = _member("m", 0.9, 1.0)
    found = dataclasses.replace(found, measured={**found.measured, **timed})
    original = _member("0000", 0.9, 3.0)
    scaled = timed_with(found, original).measured
    assert scaled["latency_ms"] == pytest.approx(1.5)
    assert scaled["latency_ci95_ms"] == pytest.approx([1.35, 1.8])
    assert scaled["latency_scale"] == pytest.approx(1.5)
    assert found.measured["latency_ms"] == 1.0
    assert timed_with(found, _member("0000", 0.9, 2.0)) is found
    untimed = _member("m", 0.9, 1.0)
    assert timed_with(untimed, original) is untimed


def test_front_json_holds_both(tmp_path: Path) -> None:
    write_front(tmp_path, {"latency_ms": 1.0}, MEMBERS[:2], MEMBERS[2:])
    document = read_json(tmp_path / "front.json")
    assert document["schema_version"] == 1
    assert [entry["id"] for entry in document["front"]] == ["a", "b"]
    assert [entry["id"] for entry in document["others"]] == ["c", "d"]
    assert MeasuredMember.from_json(document["front"][1]) == MEMBERS[1]


def test_a_member_is_written_measured_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PlainNet().eval()
    inputs = torch.randn(32, 3, 16, 16)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    batches = [(inputs, labels)]
    task = Task(train=batches, val=batches, test=batches)
    splits = make_splits(task, seed=0)
    graph = trace(model, inputs[:2])
    compressed = compress_model(model, graph, Candidate(), ((inputs[:2],), {}))
    store = MemberStore(tmp_path, model, task, splits, Target.named("onnxruntime-cpu"))
    costs = {"macs": 1.0, "bops": 1.0, "parameters": 1.0}
    member = store.write("0000", compressed, {}, costs, origin="x", trained_images=0)
    assert member.measured["val_accuracy"] == 1.0
    assert read_members(tmp_path) == []  # not measured, so not complete
    (measured,) = store.measure([member], seconds=0.5)
    assert read_members(tmp_path) == [measured]
    low, high = measured.measured["latency_ci95_ms"]
    assert 0.0 < low <= measured.measured["latency_ms"] <= high
    assert measured.measured["latency_reference_ms"] == measured.measured["latency_ms"]
    size = (tmp_path / "front" / "0000" / "weights.packed").stat().st_size
    assert measured.measured["size_bytes"] == size

    store.predict("0000", {"accuracy": 0.9})
    store.predict("0000", {"accuracy": 0.1})
    (predicted,) = read_members(tmp_path)
    assert predicted.predicted == {"accuracy": 0.9}

    path = tmp_path / "front" / "0000" / "model.onnx"
    before = path.read_bytes()
    monkeypatch.setattr(members, "RuntimeModule", lambda *_, **__: _Opposite(model))
    with pytest.raises(ExportError, match="accuracy"):
        store.write("0000", compressed, {}, costs, origin="x", trained_images=0)
    assert read_members(tmp_path) == [predicted]
    assert path.read_bytes() == before
    assert [entry.name for entry in (tmp_path / "front").iterdir()] == ["0000"]

    monkeypatch.undo()
    store.write("0000", compressed, {}, costs, origin="y", trained_images=5)
    assert read_members(tmp_path) == []  # new files, not measured yet

    with pytest.raises(ExportError, match="accuracy"):
        store._verify(compressed, _Opposite(model), path, store.splits.val)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "asked"),
    [
        ((0, 0, 1, 1), 2),  # equal on the first examples
        ((1, 0, 1, 0), 4),  # not equal there, and fine on all
        ((2, 0, 1, 0), None),
        ((1, 0, 1, 0, 0, 0, 0, 1), None),
    ],
)
def test_the_model_is_asked_no_further_where_the_first_examples_agree(
    wrong: tuple[int, ...], asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "FIRST_EXAMPLES", 40)
    inputs = torch.eye(4).repeat(8, 1)
    order = np.random.default_rng(0).permutation(len(wrong))  # of the comparison
    wrong = tuple(wrong[place] for place in np.argsort(order))
    val = [(inputs, inputs.argmax(1)) for _ in wrong]
    task = Task(train=val, val=val, test=val)
    splits = dataclasses.replace(make_splits(task, seed=0), val=tuple(val))
    store = MemberStore(Path(), torch.nn.Identity(), task, splits, Target.named("onnxruntime-cpu"))
    model, runtime = _Counted(), _Mistaken(wrong)
    if asked is None:
        allowed = 2 / (32 * len(wrong))
        with pytest.raises(ExportError, match=rf"accuracy of 1\.0000 within {allowed:.4f}"):
            store._verify(model, runtime, Path("model.onnx"), splits.val)
        return
    accuracy = store._verify(model, runtime, Path("model.onnx"), splits.val)
    assert accuracy == pytest.approx(1.0 - sum(wrong) / (32 * len(wrong)))
    assert model.calls == asked


class _Counted(torch.nn.Module):
    """Returns its inputs."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


class _Mistaken(torch.nn.Module):
    """Returns its inputs, but for some examples of every batch."""

    def __init__(self, wrong: tuple[int, ...]) -> None:
        super().__init__()
        self.wrong = iter(wrong)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        number = next(self.wrong)
        return torch.cat([-x[:number], x[number:]])


class _Opposite(torch.nn.Module):
    """A runtime that prefers what the model rejects."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.model(x)
