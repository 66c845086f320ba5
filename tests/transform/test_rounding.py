import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.transform.rounding import (
    DAMPING,
    cancel_errors,
    observe_inputs,
    round_weights,
)
from autocompress.transform.weights import WeightGrid, WeightLayout, choose_grid
from seasoned import compressed


def _problem(rows: int, columns: int, bits: int) -> tuple[torch.Tensor, WeightGrid, torch.Tensor]:
    """A weight, its grid, and second moments of strongly correlated inputs."""
    weight = torch.randn(rows, columns)
    grid = choose_grid(weight, WeightLayout(shape=(rows, columns)), LayerConfig(weight_bits=bits))
    inputs = torch.randn(200, 2) @ torch.randn(2, columns) + 0.3 * torch.randn(200, columns)
    return weight, grid, (inputs.T @ inputs).double()[None]


def _errors(weight: torch.Tensor, values: torch.Tensor, moment: torch.Tensor) -> np.ndarray:
    """Squared errors of the outputs, one per row."""
    difference = (values - weight).double()
    return torch.einsum("ri,ij,rj->r", difference, moment[0], difference).numpy()


def _one_by_one(weight: torch.Tensor, grid: WeightGrid, moment: torch.Tensor) -> torch.Tensor:
    """Optimal brain quantisation in a fixed order, with explicit inverses of what is left."""
    left, codes = weight.double().clone(), torch.zeros_like(weight)
    damped = moment[0] + DAMPING * moment[0].diagonal().mean() * torch.eye(len(moment[0]))
    order = moment[0].diagonal().argsort(descending=True, stable=True).tolist()
    for at, column in enumerate(order):
        rest = order[at:]
        inverse = torch.linalg.inv(damped[rest][:, rest])
        codes[:, column] = grid.round(left[:, column] / grid.scales[:, 0])
        error = left[:, column] - codes[:, column] * grid.scales[:, 0]
        left[:, rest] -= error[:, None] * inverse[0] / inverse[0, 0]
    return codes


@pytest.mark.parametrize("columns", [5, 150])
def test_codes_are_those_of_optimal_brain_quantisation(columns: int) -> None:
    weight, grid, moment = _problem(3, columns, 3)
    codes = cancel_errors(weight, grid, moment)
    expected = _one_by_one(weight, grid, moment)
    agree = (codes == expected).float().mean().item()
    assert agree > 0.99  # ties of rounding aside
    assert codes.dtype == torch.int8


def test_errors_come_close_to_those_of_the_best_codes() -> None:
    gptq, nearest, best = [], [], []
    for _ in range(10):
        weight, grid, moment = _problem(2, 5, 2)
        codes = cancel_errors(weight, grid, moment)
        gptq.append(_errors(weight, grid.values(codes), moment))
        nearest.append(_errors(weight, grid.values(grid.codes(weight)), moment))
        every = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=5)))
        tried = [_errors(weight, grid.values(code.expand(2, 5)), moment) for code in every]
        best.append(np.min(tried, axis=0))
    assert np.sum(best) <= np.sum(gptq) < 0.7 * np.sum(nearest)
    assert np.sum(gptq) < 2.0 * np.sum(best)


def test_independent_inputs_are_rounded_to_the_nearest() -> None:
    weight, grid, _ = _problem(4, 6, 3)
    moment = torch.diag(torch.rand(6).double() + 0.1)[None]
    assert torch.equal(cancel_errors(weight, grid, moment).float(), grid.codes(weight))


def test_masked_weights_stay_zero_and_codebooks_are_kept() -> None:
    weight, _, moment = _problem(4, 12, 2)
    mask = torch.rand(4, 12) < 0.5
    config = LayerConfig(weight_bits=2, weight_format="codebook", sparsity=0.5)
    grid = choose_grid(weight * mask, WeightLayout(shape=(4, 12)), config, zero=True)
    codes = cancel_errors(weight * mask, grid, moment, mask)
    assert not bool(codes[~mask].any())
    assert set(codes.unique().tolist()) <= set(grid.levels.tolist())


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "strided": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding="valid", bias=False),
    "dilated": nn.Conv2d(4, 6, 3, dilation=(2, 1), padding="same", bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, padding=2, bias=False),
    "1d": nn.Conv1d(4, 6, 3, padding=1, bias=False),
    "3d": nn.Conv3d(4, 6, 2, stride=2, bias=False),
    "linear": nn.Linear(4, 6, bias=False),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_second_moments_give_the_power_of_the_outputs(name: str) -> None:
    layer = CONVOLUTIONS[name]
    side = 2 + sum(isinstance(layer, kind) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    spatial = {"1d": (40,), "linear": (7,), "3d": (10, 10, 10)}.get(name, (14, 15))
    shape = (16, *spatial, 4) if name == "linear" else (16, 4, *spatial)
    assert side >= 2
    inputs = torch.randn(shape)
    model = nn.Sequential(layer)
    result = compressed(model, inputs, Candidate())
    moments = observe_inputs(result, ["0"], [inputs] * 20, lambda network, batch: network(batch))
    layout = WeightLayout.of(result.network[0])
    rows = layout.rows(result.network[0].weight.detach()).double()
    moment = moments["0"]
    grouped = rows.reshape(len(moment), -1, rows.shape[1])
    powers = torch.einsum("gri,gij,grj->gr", grouped, moment, grouped).flatten()
    with torch.no_grad():
        outputs = result.network[0](inputs)
    if name != "linear":
        outputs = outputs.movedim(1, -1)
    expected = outputs.square().flatten(0, -2).mean(dim=0)
    drawn = 20 * min(1024, 16 * 7 if name == "linear" else 1024)
    torch.testing.assert_close((powers / drawn).float(), expected, rtol=0.1, atol=1e-3)


def test_second_moments_are_whole_where_models_run_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(300, 4)).eval()
    inputs = torch.rand(16, 300) + 3.0  # one direction has nearly all of the power
    candidate = Candidate(layers={"0": LayerConfig(weight_bits=4, activation_bits=8)})
    model = compressed(network, inputs, candidate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moment = observe_inputs(model, ["0"], [inputs] * 8, lambda m, batch: m(batch))["0"]
    least, most = torch.linalg.eigvalsh(moment[0])[[0, -1]].tolist()
    assert least > -1e-5 * most


def test_rounding_a_model_brings_its_outputs_closer_and_stays() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(288, 5),
    ).eval()
    smooth = functional.interpolate(torch.randn(64, 3, 3, 3), (8, 8), mode="bilinear")
    inputs = smooth + 0.1 * torch.randn(64, 3, 8, 8)
    config = LayerConfig(weight_bits=3, activation_bits=8)
    layers = {"0": config, "2": config, "4": LayerConfig(weight_bits=8, activation_bits=8)}
    result = compressed(model, inputs, Candidate(layers=layers))
    with torch.no_grad():
        before = (result(inputs) - model(inputs)).square().mean()
        eight = result.quantised_weight("4").codes.clone()
        round_weights(result, [inputs], lambda network, batch: network(batch))
        after = (result(inputs) - model(inputs)).square().mean()
        assert after < 0.9 * before
        assert torch.equal(result.quantised_weight("4").codes, eight)
        for name in ("0", "2"):
            weight = result.network.get_submodule(name).weight
            values = result.quantised_weight(name).values()
            torch.testing.assert_close(weight.detach(), values, rtol=0, atol=0)
