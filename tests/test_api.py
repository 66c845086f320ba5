from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress import api, errors
from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    MissingFileError,
    TraceError,
    WrongTypeError,
)
from blobs import batches, make_task
from zoo import Mlp


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the models are tiny, and hosts are busy


def test_the_public_names_are_all_there() -> None:
    for name in api.__all__:
        assert getattr(ac, name) is getattr(api, name)
    for name in errors.__all__:
        assert getattr(ac, name) is getattr(errors, name)
    assert set(dir(ac)) == {*api.__all__, *errors.__all__}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ac.compress(Mlp(), {}, torch.zeros(2, 12)), "'candidate': expected a Candidate"),
        (lambda: ac.load("weights.packed", "model.pt"), "'model': expected a Module"),
        (
            lambda: ac.measure_latency("a.onnx", "onnxruntime-cpu", torch.zeros(2), seconds="1"),
            "'seconds': expected a float, got '1'",
        ),
    ],
)
def test_arguments_of_another_type_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(WrongTypeError, match=message):
        call()


def test_studies_that_are_not_there_are_named(tmp_path: Path) -> None:
    for call in (ac.open, lambda path: ac.resume(path, Mlp(), make_task())):
        with pytest.raises(MissingFileError, match=r"none"):
            call(tmp_path / "none")
    assert not (tmp_path / "none").exists()


class _Fork(Mlp):
    """Takes another way when the values say so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class _Broken(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order")


class _NoLayers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :4].clone()


class _NotANumber(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * torch.nan


def _task(**splits: Any) -> ac.Task:
    loaders = {"train": batches(2, 8, seed=0), "val": batches(2, 8, seed=1)}
    return ac.Task(**(loaders | splits))


WIDE = [(torch.randn(8, 13, generator=torch.Generator().manual_seed(0)), torch.zeros(8).long())]


MISLABELLED = [(x, y + 2) for x, y in batches(1, 8, seed=0)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": {}}, WrongTypeError, "expected a Module, got dict"),
        ({"model": Mlp}, WrongTypeError, "expected a Module, got type"),
        ({"task": [(1, 2)]}, WrongTypeError, "expected a Task, got list"),
        ({"budget": 100}, WrongTypeError, "expected a Budget, got 100"),
        ({"executor": "threads"}, InvalidInputError, "'executor': expected one of 'inline'"),
        ({"seed": 0.5}, WrongTypeError, "'seed': expected an int"),
        ({"seed": True}, WrongTypeError, "'seed': expected an int"),
        ({"sampler": "tpa"}, InvalidInputError, "did you mean 'tpe'"),
        ({"warm_start": "runs/a"}, WrongTypeError, "'warm_start': expected a list of folders"),
        ({"warm_start": ["none/there"]}, MissingFileError, "none/there"),
        ({"designs": ["half"]}, WrongTypeError, "'designs': expected a Candidate"),
        ({"target": "onnxruntime-gpu"}, InvalidInputError, "did you mean 'onnxruntime-cpu'"),
        ({"target": "none.json"}, MissingFileError, r"none\.json"),
        ({"space": "cnm"}, AutocompressError, "cnn"),
        ({"space": {"prunning": {}}}, AutocompressError, "prunning"),
        ({"objectives": ("accuracy", "latency")}, InvalidInputError, "latency_ms"),
        ({"objectives": ("accuracy",)}, InvalidInputError, "at least one cost"),
        ({"constraints": {"latency": 1}}, InvalidInputError, "latency_ms"),
        ({"constraints": {"latency_ms": "fast"}}, InvalidInputError, "write '60%'"),
        ({"task": _task(val=[])}, InvalidInputError, "task 'val'.*empty"),
        ({"task": _task(train=[])}, InvalidInputError, "task 'train'.*empty"),
        ({"task": _task(test=[])}, InvalidInputError, "task 'test'.*empty"),
        ({"task": _task(val=WIDE)}, TraceError, "expected a forward pass"),
        ({"task": _task(train=WIDE)}, InvalidInputError, "task 'train': expected batches that the"),
        ({"task": _task(test=WIDE)}, InvalidInputError, "task 'test': expected batches that the"),
        ({"task": _task(val=MISLABELLED)}, InvalidInputError, "class indices in"),
        ({"model": _Broken()}, TraceError, "out of order"),
        ({"model": _NoLayers()}, TraceError, "at least one convolution or linear layer"),
        ({"model": _Fork()}, TraceError, "control flow that depends on values"),
        ({"model": _NotANumber()}, InvalidInputError, "expected finite outputs"),
        ({"device": "tpu9"}, InvalidInputError, "'device': expected a device.*got 'tpu9'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_search_refuses_wrong_input_in_one_line_and_writes_nothing(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    call = {"model": Mlp(), "task": _task(), "budget": ac.Budget(trials=2)} | options
    folder = tmp_path / "runs" / "study"
    with pytest.raises(error, match=message) as caught:
        ac.search(call.pop("model"), call.pop("task"), study_dir=folder, verbose=False, **call)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_were_synthesised_have_no_targets_to_learn_from(tmp_path: Path) -> None:
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    model = nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).train()
    data = [(torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,)))]
    with pytest.raises(InvalidInputError, match="got batches of inputs alone"):
        ac.search(
            model,
            ac.Task(data, data),
            study_dir=tmp_path,
            training=ac.TrainingConfig(data="synthetic"),
        )
    assert norm.num_batches_tracked == 0, "the caller's model is not run"
