import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.evaluation.curvature import hessian_traces, rounding_damage
from seasoned import compressed


def _run(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return model(batch[0])


def _batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(16, 5), torch.zeros(16)) for _ in range(count)]


def _model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()


def _divergence(model: nn.Module, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    reference = model(inputs).log_softmax(dim=1).detach()
    rows = torch.func.functional_call(model, {"0.weight": weight}, (inputs,)).log_softmax(dim=1)
    return (reference.exp() * (reference - rows)).sum(dim=1).mean()


def test_traces_are_those_of_the_whole_hessian() -> None:
    model, batches = _model(), _batches(150)
    expected = 0.0
    for inputs, _ in batches:
        hessian = torch.autograd.functional.hessian(
            lambda weight, seen=inputs: _divergence(model, weight, seen), model[0].weight.detach()
        )
        expected += float(hessian.reshape(20, 20).trace()) / len(batches)
    found = hessian_traces(model, ["0", "2"], batches, _run, seed=0)
    assert found["0"] == pytest.approx(expected, rel=0.1)
    assert found["2"] > 0.0
    again = hessian_traces(model, ["0", "2"], batches, _run, seed=0)
    assert found == again
    assert all(parameter.grad is None for parameter in model.parameters())


def test_damage_is_close_to_the_divergence_that_it_stands_for() -> None:
    model, batches = _model(), _batches(40)
    traces = hessian_traces(model, ["0"], batches, _run, seed=0)
    result = compressed(model, batches[0][0], Candidate(layers={"0": LayerConfig(weight_bits=5)}))
    # The mean over directions; rounding takes one of them, so that only the size agrees.
    real = sum(
        float(_divergence(model, result.quantised_weight("0").values(), inputs).detach())
        for inputs, _ in batches
    ) / len(batches)
    assert real / 4 < rounding_damage(result, traces) < 4 * real


def test_eight_bits_are_taken_to_cost_nothing() -> None:
    model, batches = _model(), _batches(1)
    result = compressed(model, batches[0][0], Candidate(layers={"0": LayerConfig(weight_bits=8)}))
    assert rounding_damage(result, {"0": 1.0}) == 0.0
