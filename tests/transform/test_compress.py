import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.transform.compress import calibrate_grids, compress_model, rebuild_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.discovery import discover_plan
from autocompress.transform.record import SurgeryRecord
from seasoned import compressed, pruned, seasoned, uniform


@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_random_state_are_left_alone(training: bool) -> None:
    model, inputs = seasoned("ResidualNet")
    with torch.no_grad():
        outputs = model(inputs)
    graph = trace(model, inputs)
    model.train(training)
    state = copy.deepcopy(model.state_dict())
    modules = [(name, type(m), m.training) for name, m in model.named_modules()]
    random_state = torch.get_rng_state()
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.5),
        dropped_blocks=("layer1.1",),
        layers=uniform(graph, 4),
    )
    result = compressed(model, inputs, candidate)
    assert not any(module.training for module in result.modules())
    for parameter in result.parameters():
        parameter.data.zero_()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [(name, type(m), m.training) for name, m in model.named_modules()] == modules
    assert list(model.state_dict()) == list(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(inputs), outputs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ResidualNet", "InvertedResidualNet"])
def test_the_unmodified_candidate_changes_nothing(name: str) -> None:
    model, inputs = seasoned(name)
    result = compressed(model, inputs, Candidate())
    with torch.no_grad():
        torch.testing.assert_close(result(inputs), model(inputs), rtol=0, atol=0)


def test_eight_bits_are_close_and_fewer_are_farther() -> None:
    model, inputs = seasoned("ResidualNet", examples=32)
    graph = trace(model, inputs)
    with torch.no_grad():
        expected = model(inputs)
        errors = []
        for bits in (8, 4, 2):
            result = compressed(model, inputs, Candidate(layers=uniform(graph, bits)))
            errors.append(float((result(inputs) - expected).abs().mean() / expected.abs().mean()))
    assert errors[0] < 0.05
    assert errors[0] < errors[1] < errors[2]


def test_canonically_equal_candidates_give_identical_models() -> None:
    model, inputs = seasoned("ResidualNet")
    layers = uniform(trace(model, inputs), 8)
    short = Candidate(
        pruning_ratios={"layer2.1.conv1": 0.25}, dropped_blocks=("layer1.1",), layers=layers
    )
    wordy = replace(
        short,
        pruning_ratios={"layer2.1.conv1": 0.25, "layer1.1.conv1": 0.75, "layer1.0.conv1": 0.0},
        layers={**layers, "layer1.1.conv1": LayerConfig(weight_bits=2, activation_bits=4)},
    )
    a, b = (compressed(model, inputs, candidate) for candidate in (short, wordy))
    assert short != wordy
    assert a.record == b.record
    assert a.record.to_json() == b.record.to_json()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_a_record_rebuilds_the_shape_on_other_weights() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.5), dropped_blocks=("layer1.1",), layers=uniform(graph, 8)
    )
    original = compressed(model, inputs, candidate)
    other, _ = seasoned("ResidualNet")
    rebuilt = rebuild_model(other, original.record)
    rebuilt.load_state_dict(original.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"layer1.0.conv3": LayerConfig(weight_bits=8)}, "did you mean 'layer1.0.conv[12]'"),
        ({"fc": LayerConfig(weight_bits=1, sparsity=0.5)}, "has no zero"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    layers: dict[str, LayerConfig], message: str
) -> None:
    model, inputs = seasoned("ResidualNet")
    with pytest.raises(InvalidInputError, match=message):
        compressed(model, inputs, Candidate(layers=layers))


def test_a_layer_that_cannot_be_quantised_is_refused_with_the_reason() -> None:
    model, inputs = seasoned("Mlp")
    model.fc2.weight = torch.nn.Parameter(model.fc2.weight.detach())
    model.fc3 = torch.nn.Sequential(model.fc2, model.fc3)
    graph = trace(model, inputs)
    assert not graph.layer("fc2").quantisable
    candidate = Candidate(layers={"fc2": LayerConfig(weight_bits=8, activation_bits=8)})
    with pytest.raises(InvalidInputError, match="shared weights"):
        compress_model(model, graph, candidate, ((inputs,), {}))


def test_calibration_needs_finite_batches() -> None:
    model, inputs = seasoned("PlainNet")
    result = compressed(model, inputs, Candidate(layers=uniform(trace(model, inputs), 8)))
    with pytest.raises(InvalidInputError, match="at least one batch, got none"):
        calibrate_grids(result, [], lambda network, batch: network(batch))
    inputs[0, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        calibrate_grids(result, [inputs], lambda network, batch: network(batch))


def test_calibration_does_not_remember_earlier_batches() -> None:
    model, inputs = seasoned("PlainNet")
    candidate = Candidate(layers=uniform(trace(model, inputs), 8))
    result = compressed(model, inputs, candidate, "minmax")
    grids = [q.get_extra_state() for q in result.quantisers]
    calibrate_grids(result, [100 * inputs], lambda network, batch: network(batch), "minmax")
    assert result.quantisers[0].high > 90 * float(inputs.max())
    halves = [inputs[:4], inputs[4:]]
    calibrate_grids(result, halves, lambda network, batch: network(batch), "minmax")
    for quantiser, grid in zip(result.quantisers, grids, strict=True):
        torch.testing.assert_close(quantiser.get_extra_state(), grid, rtol=1e-4, atol=1e-5)


def test_grids_that_calibration_did_not_reach_are_named() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.a(x))
            return self.b(x.sin()) if x.shape[1:] == (4,) and len(x) > 2 else x

    layers = {name: LayerConfig(weight_bits=8, activation_bits=8) for name in ("a", "b")}
    plan = discover_plan(Skipping(), ((torch.randn(3, 4),), {}), layers)
    record = SurgeryRecord(
        candidate=Candidate(layers=layers), plan=plan, quantised={"a": 8, "b": 8}
    )
    compressed = CompressedModel(Skipping(), record)
    calibrate_grids(compressed, [torch.randn(3, 4)], lambda model, batch: model(batch))
    assert compressed.calibrated
    with pytest.raises(InvalidInputError, match=r"none for 1 of them, such as 'b\.input'"):
        calibrate_grids(compressed, [torch.randn(2, 4)], lambda model, batch: model(batch))
