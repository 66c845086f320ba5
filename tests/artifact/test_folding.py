import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.artifact.folding import FoldedLayer, fold_layer, norm_affine
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.weights import WeightLayout
from seasoned import WHOLE, compressed

FACTORS = [1.5, -0.8, 0.0, -2.0]


def _pair(bits: int, activation_bits: int = 8) -> tuple[CompressedModel, torch.Tensor]:
    """A convolution and a batch norm with negative factors and one of zero."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(FACTORS))
        model[1].bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
        model[1].running_mean.copy_(torch.tensor([0.5, -0.5, 0.2, 0.0]))
        model[1].running_var.copy_(torch.tensor([0.3, 2.0, 1.0, 0.7]))
    inputs = torch.randn(4, 3, 6, 6)
    config = LayerConfig(weight_bits=bits, activation_bits=activation_bits)
    return compressed(
        model, inputs, Candidate(layers={"0": config}), "minmax", quantisation=WHOLE
    ), inputs


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.double().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_folding_is_exact_whatever_the_sign_of_the_norm(bits: int) -> None:
    model, inputs = _pair(bits)
    folded = fold_layer(model, "0")
    assert folded.codes.dtype == torch.int8
    assert int(folded.codes.abs().max()) == 2 ** (bits - 1) - 1
    assert bool((folded.scales > 0).all())
    conv, norm = model.network[0].double(), model.network[1].double()
    scale = model.quantised_weight("0").grid.scales
    limit = 2 ** (bits - 1) - 1
    weight = (conv.weight / _wide(scale)).round().clamp(-limit, limit) * _wide(scale)
    with torch.no_grad():
        expected = norm(functional.conv2d(inputs.double(), weight, conv.bias))
    got = functional.conv2d(
        inputs.double(), folded.codes.double() * _wide(folded.scales), folded.bias.double()
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_factor_of_zero_clears_the_codes_but_keeps_the_integers_usable() -> None:
    folded = fold_layer(_pair(8)[0], "0")
    assert not bool(folded.codes[2].any())
    assert float(folded.scales[2]) > 1e-6
    assert folded.bias_codes() is not None


def test_integer_biases_step_by_input_times_weight_scale() -> None:
    model, inputs = _pair(8)
    folded = fold_layer(model, "0")
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    steps = folded.scales[:, 0] * (high - low) / 255
    codes = folded.bias_codes()
    assert codes is not None
    assert codes.dtype == torch.int32
    torch.testing.assert_close(codes.double(), (folded.bias / steps).double().round())
    assert fold_layer(_pair(8, activation_bits=32)[0], "0").bias_codes() is None


@pytest.mark.parametrize("factor", [1e-6, 1e-9, 1e-30])
def test_a_channel_that_is_almost_off_leaves_its_bias_an_integer(factor: float) -> None:
    model, inputs = _pair(8)
    before = fold_layer(model, "0")
    with torch.no_grad():
        model.network[1].weight[1] = factor
    folded = fold_layer(model, "0")
    codes = folded.bias_codes()
    assert codes is not None
    assert folded.bias_scales is not None
    error = (codes.double() * folded.bias_scales.double() - folded.bias.double()).abs()
    assert bool((error <= 0.51 * folded.bias_scales).all())
    others = [0, 2, 3]
    assert torch.equal(folded.codes[others], before.codes[others])
    assert torch.equal(folded.scales[others], before.scales[others])
    with torch.no_grad():
        weight = folded.codes.double() * _wide(folded.scales)
        got = functional.conv2d(inputs.double(), weight, folded.bias.double())
        expected = model.network.double()(inputs.double())
    torch.testing.assert_close(got[:, 1], expected[:, 1], rtol=1e-4, atol=1e-7)


def test_a_bias_that_overflows_stays_float() -> None:
    layer = FoldedLayer(
        codes=torch.zeros(1, 1, dtype=torch.int8),
        scales=torch.ones(1, 1),
        layout=WeightLayout(shape=(1, 1)),
        bias=torch.tensor([1.0]),
        bias_scales=torch.tensor([1e-12]),
    )
    assert layer.bias_codes() is None


def test_the_affine_of_a_norm() -> None:
    norm = _pair(8)[0].network[1]
    factor, shift = norm_affine(norm)
    inputs = torch.randn(2, 4, 3, 3)
    expected = inputs * factor.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1)
    torch.testing.assert_close(norm(inputs), expected)
    plain = nn.BatchNorm2d(4, affine=False)
    torch.testing.assert_close(norm_affine(plain)[1], torch.zeros(4))
    with pytest.raises(TypeError, match="running statistics"):
        norm_affine(nn.BatchNorm2d(4, track_running_stats=False))
