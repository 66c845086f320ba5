import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.candidate import LayerConfig
from autocompress.transform.weights import QuantisedWeight, WeightGrid, WeightLayout, choose_grid

LAYERS = {
    "linear": nn.Linear(10, 6),
    "conv1d": nn.Conv1d(4, 6, 3),
    "conv2d": nn.Conv2d(6, 4, 3, groups=2),
    "conv3d": nn.Conv3d(2, 4, 2),
    "transposed1d": nn.ConvTranspose1d(4, 6, 3),
    "transposed2d": nn.ConvTranspose2d(4, 6, 3, groups=2),
    "transposed3d": nn.ConvTranspose3d(4, 4, 2, groups=4),
    "embedding": nn.Embedding(12, 5),
}


def _quantised(layer: nn.Module, config: LayerConfig) -> QuantisedWeight:
    weight = layer.get_parameter("weight").detach()
    grid = choose_grid(weight, WeightLayout.of(layer, config.group_size), config)
    return QuantisedWeight(codes=grid.codes(weight).to(torch.int8), grid=grid)


def _output_rows(name: str, weight: torch.Tensor) -> torch.Tensor:
    """One row per output channel, written out by hand."""
    if not name.startswith("transposed"):
        return weight.reshape(len(weight), -1)
    groups = LAYERS[name].groups
    chunks = weight.chunk(groups, dim=0)  # inputs of a group x outputs of a group x kernel
    return torch.cat([chunk.transpose(0, 1).reshape(chunk.shape[1], -1) for chunk in chunks])


@pytest.mark.parametrize("name", LAYERS)
def test_rows_hold_the_weights_of_one_output(name: str) -> None:
    weight = LAYERS[name].weight.detach()
    layout = WeightLayout.of(LAYERS[name])
    torch.testing.assert_close(layout.rows(weight), _output_rows(name, weight), rtol=0, atol=0)
    torch.testing.assert_close(layout.unrows(layout.rows(weight)), weight, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("group_size", [0, 1, 2, 4])
def test_scales_reach_the_weights_that_share_them(name: str, group_size: int) -> None:
    weight = LAYERS[name].weight.detach()
    layout = WeightLayout.of(LAYERS[name], group_size)
    shared = layout.shared(weight)
    scales = torch.rand(shared.shape[:2]) + 0.5
    size = (group_size or layout.inputs) * (layout.rows(weight).shape[1] // layout.inputs)
    rows = _output_rows(name, weight)
    expected = torch.stack(
        [row / scales[i].repeat_interleave(size)[: len(row)] for i, row in enumerate(rows)]
    )
    got = _output_rows(name, weight / layout.spread(scales))
    torch.testing.assert_close(got, expected)
    assert shared.sum().item() == pytest.approx(weight.sum().item(), rel=1e-4, abs=1e-5)
    assert torch.equal(layout.unshared(shared), weight)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_match_fake_quantisation_of_torch(name: str, bits: int) -> None:
    quantised = _quantised(LAYERS[name], LayerConfig(weight_bits=bits))
    weight, limit = LAYERS[name].weight.detach(), 2 ** (bits - 1) - 1
    rows, scales = _output_rows(name, weight), quantised.grid.scales.flatten()
    expected = torch.fake_quantize_per_channel_affine(
        rows, scales, torch.zeros(len(rows), dtype=torch.int32), 0, -limit, limit
    )
    torch.testing.assert_close(_output_rows(name, quantised.values()), expected)
    assert quantised.codes.dtype == torch.int8
    assert int(quantised.codes.abs().max()) <= limit
    again = quantised.grid.codes(quantised.values())
    torch.testing.assert_close(again, quantised.codes.float(), rtol=0, atol=0)


def test_smaller_groups_fit_better() -> None:
    layer = nn.Linear(64, 8)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 0, 64))
    errors = []
    for size in (0, 32, 8):
        quantised = _quantised(layer, LayerConfig(weight_bits=4, group_size=size))
        errors.append(float((quantised.values() - layer.weight.detach()).square().sum()))
        assert quantised.grid.scales.shape == (8, 1 if size == 0 else 64 // size)
    assert errors[0] > errors[1] > errors[2]


def test_one_bit_is_a_sign_and_the_mean_magnitude() -> None:
    weight = LAYERS["conv2d"].weight.detach()
    quantised = _quantised(LAYERS["conv2d"], LayerConfig(weight_bits=1))
    mean = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(quantised.values(), weight.sign() * mean)
    assert quantised.grid.levels.tolist() == [-1, 1]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_codebook_fits_better_than_a_uniform_grid(bits: int) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(64, 16)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(16, 64) ** 3)
    uniform = _quantised(layer, LayerConfig(weight_bits=bits))
    codebook = _quantised(layer, LayerConfig(weight_bits=bits, weight_format="codebook"))
    entries = codebook.grid.codebook
    assert entries is not None
    assert len(entries) == 2**bits
    assert set(codebook.codes.unique().tolist()) <= set(entries.tolist())
    wide = codebook.grid.scales * entries[None].float()
    nearest = (layer.weight[..., None] - wide[:, None]).abs().argmin(dim=2)
    expected = torch.gather(wide, 1, nearest)
    torch.testing.assert_close(codebook.values(), expected)
    errors = [(q.values() - layer.weight).square().sum().item() for q in (codebook, uniform)]
    assert errors[0] < errors[1]


def test_masked_codes_are_zero() -> None:
    weight, mask = torch.randn(4, 6), torch.rand(4, 6) < 0.5
    layout = WeightLayout(shape=(4, 6))
    config = LayerConfig(weight_bits=2, weight_format="codebook", sparsity=0.5)
    grid = choose_grid(weight * mask, layout, config, zero=True)
    assert 0 in grid.levels.tolist()
    assert not bool(grid.codes(weight * mask, mask)[~mask].any())


def test_grids_move_between_devices() -> None:
    grid = WeightGrid(
        bits=2,
        layout=WeightLayout(shape=(1, 2)),
        scales=torch.ones(1, 1),
        codebook=torch.tensor([-3, 5], dtype=torch.int8),
    )
    moved = grid.to(torch.device("meta"))
    assert moved.scales.is_meta
    assert moved.levels.is_meta
    assert np.array_equal(grid.codes(torch.tensor([[0.9, 1.0]])).numpy(), [[-3.0, 5.0]])
