import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.evaluation.curvature import hessian_traces, rounding_damage
from autocompress.evaluation.outputs import VALUES, OutputForm
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


class _Attending(nn.Module):
    """Fused attention, and a head that its outputs do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.other(x)
        y = self.fc(x)[:, None]
        return nn.functional.scaled_dot_product_attention(y, y, y)[:, 0]


def test_attention_has_a_curvature_and_what_is_not_read_has_none() -> None:
    torch.manual_seed(0)
    found = hessian_traces(_Attending(), ["fc", "other"], _batches(2), _run, seed=0)
    assert found["fc"] > 0.0
    assert found["other"] == 0.0


def test_predicted_numbers_have_a_curvature_too() -> None:
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(5, 1)).eval(), _batches(100)
    form = OutputForm(kind=VALUES)
    found = hessian_traces(model, ["0"], batches, _run, seed=0, form=form)
    inputs = torch.cat([x for x, _ in batches])
    assert found["0"] == pytest.approx(2.0 * float(inputs.square().sum(dim=1).mean()), rel=0.1)


def test_nothing_that_the_outputs_depend_on_has_no_curvature() -> None:
    assert hessian_traces(_Attending(), ["other"], _batches(1), _run, seed=0) == {"other": 0.0}
