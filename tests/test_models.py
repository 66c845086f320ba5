import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.controller import members
from autocompress.core.candidate import Candidate
from autocompress.errors import (
    ExportError,
    InvalidInputError,
    WrongTypeError,
)
from blobs import make_task
from seasoned import seasoned
from zoo import Mlp


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the models are tiny, and hosts are busy


def _frozen(model: nn.Module) -> Callable[[], None]:
    """Remember all of a model and of the random state; calling the result compares."""
    state = copy.deepcopy(model.state_dict())
    formats = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    modes = [(name, type(module), module.training) for name, module in model.named_modules()]
    gradients = [(p.requires_grad, p.grad) for p in model.parameters()]
    random_state = torch.get_rng_state()

    def check() -> None:
        assert torch.equal(torch.get_rng_state(), random_state)
        assert [(n, type(m), m.training) for n, m in model.named_modules()] == modes
        assert [(p.requires_grad, p.grad) for p in model.parameters()] == gradients
        assert {n: tensor.stride() for n, tensor in model.state_dict().items()} == formats
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name]), name

    return check


def _joint(report: ac.CheckReport) -> ac.Candidate:
    """Prune, drop and quantise the small residual network."""
    config = ac.LayerConfig(weight_bits=8, activation_bits=8)
    return ac.Candidate(
        pruning_ratios={group.name: 0.25 for group in report.groups if group.prunable},
        dropped_blocks=("layer1.1",),
        layers={layer.name: config for layer in report.layers},
    )


def test_a_model_goes_to_the_runtime_and_back(tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet", examples=32)
    model.train()
    unchanged = _frozen(model)
    report = ac.check(model, inputs)
    assert {"conv1", "fc"} <= {layer.name for layer in report.layers}
    assert report.block("layer1.1").droppable
    assert not report.group("fc").prunable
    result = ac.compress(model, _joint(report), inputs)
    unchanged()
    assert result.calibrated
    assert result.record.candidate == _joint(report).canonical()

    artifact = ac.export(result, tmp_path / "model.onnx", inputs[:2])
    with torch.no_grad():
        expected = result(inputs)
        got = ac.RuntimeModule(artifact.path)(inputs)
        assert (got - expected).abs().mean() < 0.01 * expected.abs().mean()
        loaded = ac.load(artifact.packed_path, model)
        torch.testing.assert_close(loaded(inputs), expected, rtol=1e-4, atol=1e-4)
    assert loaded.record == result.record
    unchanged()

    for subject in (artifact, artifact.path):
        latency = ac.measure_latency(subject, "onnxruntime-cpu", inputs[:1], seconds=0.3)
        low, high = latency.ci95_ms
        assert 0 < low <= latency.median_ms <= high
        assert len(latency.samples) > 0


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * factor


def test_one_number_for_all_examples_is_an_input_too(tmp_path: Path) -> None:
    inputs = (torch.randn(8, 16), torch.tensor(0.5))
    result = ac.compress(_Scaled(), Candidate(), inputs)
    artifact = ac.export(result, tmp_path / "model.onnx", inputs)
    target = ac.Target.named("onnxruntime-cpu", batch_size=3)
    assert ac.measure_latency(artifact, target, inputs, seconds=0.2).batch_size == 3
    one, number = (members._of_size(tensor, 20) for tensor in inputs)
    assert (one.shape, number.shape) == ((20, 16), ())


def test_a_task_settles_what_compress_returns() -> None:
    model, inputs = seasoned("ResidualNet", examples=32)
    labels = torch.zeros(32, dtype=torch.long)
    shifted = [(inputs + 0.5, labels)]
    task = ac.Task(train=shifted, val=shifted)
    unchanged = _frozen(model)
    candidate = _joint(ac.check(model, inputs))
    widest = ac.QuantisationConfig(observer="minmax")
    by_task = ac.compress(model, candidate, inputs, task=task, quantisation=widest)
    without = ac.compress(model, candidate, inputs)
    unchanged()
    assert not torch.equal(by_task.network.bn1.running_mean, without.network.bn1.running_mean)
    kept = next(cut.kept for cut in without.record.cuts if cut.module == "bn1")
    assert torch.equal(without.network.bn1.running_mean, model.bn1.running_mean[list(kept)])
    first = by_task.quantisers[by_task.record.plan.inputs["conv1"]]
    assert first.high == pytest.approx(float(inputs.max()) + 0.5)


def test_a_criterion_that_needs_labels_takes_them_from_the_task() -> None:
    task = make_task()
    model, points = Mlp().eval(), task.train[0][0]
    candidate = ac.Candidate(pruning_ratios={"fc1": 0.5, "fc2": 0.5}, criterion="taylor")
    with pytest.raises(InvalidInputError, match=r"criterion 'taylor'.*pass task="):
        ac.compress(model, candidate, points)
    unchanged = _frozen(model)
    result = ac.compress(model, candidate, points, task=task)
    unchanged()
    assert result.record.candidate == candidate
    assert result.network.fc1.out_features == 8


def test_compress_takes_one_ratio_for_all_groups() -> None:
    model, inputs = seasoned("ResidualNet")
    result = ac.compress(model, ac.Candidate(), inputs, pruning_ratio=0.5, target="onnxruntime-cpu")
    ratios = result.record.candidate.pruning_ratios
    assert 0.0 < sum(ratios.values()) / len(ratios) < 1.0
    assert result(inputs).shape == model(inputs).shape


@pytest.mark.parametrize("form", ["inputs", "with labels", "mapping"])
def test_calibration_takes_batches_with_and_without_labels(form: str) -> None:
    model, inputs = Mlp().eval(), torch.randn(8, 12)
    layers = {"fc1": ac.LayerConfig(weight_bits=8, activation_bits=8)}
    seen = 3 * torch.randn(64, 12)
    given: Any = {
        "inputs": seen,
        "with labels": (seen, torch.zeros(64)),
        "mapping": {"x": seen, "labels": torch.zeros(64)},
    }[form]
    examples = {"x": inputs} if form == "mapping" else inputs
    candidate = ac.Candidate(layers=layers)
    result = ac.compress(model, candidate, examples, calibration=[given])
    quantiser = result.quantisers[result.record.plan.inputs["fc1"]]
    assert quantiser.high == pytest.approx(float(seen.max()))


def test_compress_and_export_refuse_what_the_target_cannot_run(tmp_path: Path) -> None:
    model, inputs = Mlp().eval(), torch.randn(8, 12)
    narrow = ac.Candidate(layers={"fc1": ac.LayerConfig(weight_bits=4, activation_bits=4)})
    with pytest.raises(InvalidInputError, match=r"layer 'fc1' on onnxruntime-cpu.*got 4"):
        ac.compress(model, narrow, inputs, target="onnxruntime-cpu")
    result = ac.compress(model, narrow, inputs)
    with pytest.raises(ExportError, match="got 4 bits"):
        ac.export(result, tmp_path / "model.onnx", inputs)
    with pytest.raises(WrongTypeError, match="call compress"):
        ac.export(model, tmp_path / "model.onnx", inputs)  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match="give the trained module itself"):
        ac.compress(model.state_dict(), narrow, inputs)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_without_a_target_a_pt2_file_is_a_float_program(tmp_path: Path) -> None:
    model, inputs = Mlp().eval(), torch.randn(2, 12)
    config = ac.LayerConfig(weight_bits=8, activation_bits=8)
    candidate = ac.Candidate(pruning_ratios={"fc1": 0.5}, layers={"fc2": config})
    compressed = ac.compress(model, candidate, inputs)
    artifact = ac.export(compressed, tmp_path / "model.pt2", inputs)
    program = torch.export.load(artifact.path).module()
    assert torch.allclose(program(inputs), compressed(inputs), atol=0.05)
    assert artifact.packed_path.is_file()
    kept = next(p for p in program.parameters() if p.shape[1:] == (12,))
    assert kept.shape == (8, 12)
    plain = ac.compress(model, ac.Candidate(pruning_ratios={"fc1": 0.5}), inputs)
    path = ac.export(plain, tmp_path / "plain.pt2", inputs).path
    again = torch.export.load(path).module()
    assert torch.allclose(again(inputs), plain(inputs), atol=1e-5)
