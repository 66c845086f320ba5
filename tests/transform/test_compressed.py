import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.graph.operations import record_operations
from autocompress.graph.tracing import trace
from autocompress.transform.compress import calibrate_grids, compress_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.discovery import plan_grids
from seasoned import WHOLE, compressed, pruned, seasoned, uniform


def _compressed(name: str, bits: int) -> tuple[CompressedModel, torch.Tensor]:
    model, inputs = seasoned(name)
    candidate = Candidate(layers=uniform(trace(model, inputs), bits))
    return compressed(model, inputs, candidate), inputs


def _weight_on_grid(weight: torch.Tensor, bits: int, clip: float) -> torch.Tensor:
    limit = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) * clip / limit
    return (weight / scale).round().clamp(-limit, limit) * scale


def _on_grid(tensor: torch.Tensor, seen: torch.Tensor, bits: int) -> torch.Tensor:
    low, high = min(seen.min().item(), 0.0), max(seen.max().item(), 0.0)
    scale = (high - low) / (2**bits - 1)
    zero = round(-low / scale)
    return ((tensor / scale).round() + zero).clamp(0, 2**bits - 1).sub(zero) * scale


def test_a_forward_pass_equals_the_arithmetic_done_by_hand() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    seen, fresh = torch.randn(64, 6), torch.randn(16, 6) * 1.5
    layers = {
        "0": LayerConfig(weight_bits=8, activation_bits=8),
        "2": LayerConfig(weight_bits=8, activation_bits=5),
    }
    result = compressed(model, seen, Candidate(layers=layers), "minmax", quantisation=WHOLE)
    first, last = model[0], model[2]
    with torch.no_grad():
        # Calibration watches the model with its weights on their grids, activations float.
        w0, w2 = (_weight_on_grid(layer.weight, 8, 1.0) for layer in (first, last))
        hidden = functional.linear(seen, w0, first.bias).relu()
        expected = functional.linear(_on_grid(fresh, seen, 8), w0, first.bias).relu()
        expected = functional.linear(_on_grid(expected, hidden, 5), w2, last.bias)
        torch.testing.assert_close(result(fresh), expected, rtol=1e-5, atol=1e-5)
        assert (expected - model(fresh)).abs().max() > 1e-3


def test_grids_apply_only_while_they_are_on() -> None:
    result, inputs = _compressed("ResidualNet", 4)
    with torch.no_grad():
        whole = result.network(inputs)
        assert not torch.equal(result(inputs), whole)
        result.quantise_activations = False
        weights_only = result(inputs)
        result.quantise_weights = False
        torch.testing.assert_close(result(inputs), whole, rtol=0, atol=0)
    by_hand = copy.deepcopy(result.network)
    for name in result.record.quantised:
        layer = by_hand.get_submodule(name)
        grid = result.quantised_weight(name).grid
        limit = 2 ** (grid.bits - 1) - 1
        wide = grid.scales.reshape(-1, *[1] * (layer.weight.dim() - 1))
        layer.weight.data = (layer.weight / wide).round().clamp(-limit, limit).data * wide
    with torch.no_grad():
        torch.testing.assert_close(weights_only, by_hand(inputs), rtol=1e-5, atol=1e-5)


def test_weight_grids_follow_the_weights_until_they_are_fixed() -> None:
    result, _ = _compressed("Mlp", 4)
    layer = result.network.fc1
    before = result.quantised_weight("fc1")
    with torch.no_grad():
        layer.weight.mul_(2.0)
    after = result.quantised_weight("fc1")
    torch.testing.assert_close(after.grid.scales, 2 * before.grid.scales)
    assert torch.equal(after.codes, before.codes)
    result.set_quantised_weight("fc1", before)
    torch.testing.assert_close(layer.weight.detach(), before.values(), rtol=0, atol=0)
    with torch.no_grad():
        layer.weight.add_(before.grid.scales)
    fixed = result.quantised_weight("fc1")
    assert torch.equal(fixed.grid.scales, before.grid.scales)
    assert torch.equal(fixed.codes, (before.codes + 1).clamp(-7, 7))
    result.release_grids()
    assert not torch.equal(result.quantised_weight("fc1").grid.scales, before.grid.scales)


def test_gradients_reach_every_parameter_through_the_grids() -> None:
    result, inputs = _compressed("ResidualNet", 4)
    result(inputs).square().mean().backward()
    for name, parameter in result.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


def test_operations_in_place_reach_every_name_of_their_tensor() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            z = self.b(y)
            before = z
            z += y
            return functional.relu(z, inplace=True) + before

    torch.manual_seed(1)
    model, inputs = InPlace().eval(), torch.randn(4, 3, 5, 5)
    layers = {n: LayerConfig(weight_bits=8, activation_bits=8) for n in "ab"}
    result = compressed(model, inputs, Candidate(layers=layers), quantisation=WHOLE)
    with torch.no_grad():
        expected = model(inputs)
        assert (result(inputs) - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_mapping_of_inputs_is_quantised_too() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, features: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.fc(features) + ids[:, None]

    model, ids = Named().eval(), torch.arange(8)
    inputs = {"ids": ids, "features": torch.randn(8, 4)}
    candidate = Candidate(layers={"fc": LayerConfig(weight_bits=8, activation_bits=4)})
    result = compress_model(model, trace(model, inputs), candidate, ((), inputs))
    calibrate_grids(result, [inputs], lambda network, batch: network(**batch), "minmax")
    seen = inputs["features"]
    with torch.no_grad():
        weight = _weight_on_grid(model.fc.weight, 8, 1.0)
        expected = functional.linear(_on_grid(seen, seen, 4), weight, model.fc.bias) + ids[:, None]
        torch.testing.assert_close(result(**inputs), expected, rtol=1e-5, atol=1e-5)


def test_state_and_copies_carry_the_grids() -> None:
    result, inputs = _compressed("PlainNet", 8)
    state = result.state_dict()
    blank = copy.deepcopy(result)
    blank.reset_grids()
    assert result.calibrated
    assert not blank.calibrated
    blank.load_state_dict(state)
    assert blank.calibrated
    with torch.no_grad():
        torch.testing.assert_close(blank(inputs), result(inputs), rtol=0, atol=0)
        pruned_only = compressed(*_with_ratios())
        assert pruned_only.calibrated  # nothing to calibrate


def _with_ratios() -> tuple[nn.Module, torch.Tensor, Candidate]:
    model, inputs = seasoned("Mlp")
    return model, inputs, Candidate(pruning_ratios=pruned(trace(model, inputs), 0.5))


def test_bits_are_a_setting_of_the_same_module() -> None:
    result, inputs = _compressed("ResidualNet", 8)
    operations = record_operations(result.network, ((inputs,), {}))
    weights = result.network.state_dict()
    graph = trace(result.network, inputs)
    for bits in ((4, 4), (2, 8), (8, 8)):
        layers = uniform(graph, *bits)
        result.set_bits(layers, plan_grids(operations, layers))
        assert result.calibrated
        calibrate_grids(result, [inputs], lambda network, batch: network(batch))
        fresh = compressed(result.network, inputs, Candidate(layers=layers))
        with torch.no_grad():
            torch.testing.assert_close(result(inputs), fresh(inputs), rtol=1e-4, atol=1e-4)
        assert result.record == fresh.record
    for name, tensor in result.network.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_another_format_of_the_same_bits_has_another_grid() -> None:
    result, inputs = _compressed("PlainNet", 4)
    operations = record_operations(result.network, ((inputs,), {}))
    layers = uniform(trace(result.network, inputs), 4)
    before = result.quantised_weight("conv2").grid
    for other in ({"group_size": 4}, {"weight_format": "codebook"}):
        changed = {name: replace(config, **other) for name, config in layers.items()}
        result.set_bits(changed, plan_grids(operations, changed))
        grid = result.quantised_weight("conv2").grid
        assert grid.layout != before.layout or grid.codebook is not None
        fresh = compressed(result.network, inputs, Candidate(layers=changed))
        assert torch.equal(grid.scales, fresh.quantised_weight("conv2").grid.scales)


def test_every_bit_width_has_its_own_learned_step() -> None:
    result, inputs = _compressed("PlainNet", 4)
    operations = record_operations(result.network, ((inputs,), {}))
    graph = trace(result.network, inputs)
    optimiser = None
    for bits in (4, 3, 4):
        layers = uniform(graph, bits, bits)
        result.set_bits(layers, plan_grids(operations, layers))
        result.learn_steps()
        optimiser = torch.optim.SGD(result.steps.parameters(), lr=0.1)
        result.train()
        result(inputs).square().mean().backward()
        optimiser.step()
        result.eval()
    keys = {key for key in result.steps if key.startswith("conv1")}
    assert keys == {"conv1:4:0", "conv1:3:0"}
    assert torch.equal(
        result.quantised_weight("conv1").grid.scales, result.steps["conv1:4:0"].detach()
    )
    tensors = {key for key in result.steps if key.startswith("tensor:-1:")}
    assert tensors == {"tensor:-1:4", "tensor:-1:3"}


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(weight_bits=1),
        LayerConfig(weight_bits=3, weight_format="codebook"),
        LayerConfig(weight_bits=4, group_size=3),
    ],
)
def test_other_formats_are_applied_and_trained_straight_through(config: LayerConfig) -> None:
    model, inputs = seasoned("Mlp")
    candidate = Candidate(layers={"fc1": config, "fc2": config})
    result = compressed(model, inputs, candidate)
    by_hand = copy.deepcopy(model)
    for name in ("fc1", "fc2"):
        by_hand.get_submodule(name).weight.data = result.quantised_weight(name).values()
    with torch.no_grad():
        torch.testing.assert_close(result(inputs), by_hand(inputs), rtol=1e-5, atol=1e-5)
    result(inputs).square().mean().backward()
    by_hand(inputs).square().mean().backward()
    inside = by_hand.fc2.weight.grad
    mine = result.network.fc2.weight.grad
    assert bool((mine != 0).float().mean() > 0.5)
    torch.testing.assert_close(mine[mine != 0], inside[mine != 0], rtol=1e-4, atol=1e-5)
    result.learn_steps()
    assert (len(result.steps) > 0) == (config.group_size > 0)


def test_learned_steps_lie_where_the_weights_do() -> None:
    model, inputs = seasoned("Mlp")
    candidate = Candidate(layers=uniform(trace(model, inputs), 4, 32))
    result = compressed(model, inputs, candidate)
    result.learn_steps()
    kept = dict(result.steps.items())
    assert kept
    result.steps.clear()
    result.network.to("meta")
    result.set_steps(kept, {})
    assert {step.device.type for step in result.steps.values()} == {"meta"}


def test_forgotten_steps_leave_grids_to_calibration() -> None:
    result, inputs = _compressed("Mlp", 4)
    operations = record_operations(result.network, ((inputs,), {}))
    layers = uniform(trace(result.network, inputs), 4, 4)
    result.set_bits(layers, plan_grids(operations, layers))
    calibrate_grids(result, [inputs], lambda network, batch: network(batch))
    with torch.no_grad():
        expected = result(inputs)
        result.learn_steps()
        for step in result.steps.values():
            step.mul_(1.5)
        result.eval()
        assert not torch.equal(result(inputs), expected)
        result.forget_steps()
        assert not result.steps
        assert not result.calibrated
        calibrate_grids(result, [inputs], lambda network, batch: network(batch))
        assert torch.equal(result(inputs), expected)
