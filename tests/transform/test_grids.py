import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocompress.transform.grids import (
    CLIP_FRACTIONS,
    activation_grid,
    activation_values,
    weight_codes,
    weight_limit,
    weight_scales,
    weight_values,
)


def _weight(*shape: int) -> torch.Tensor:
    """A weight whose channels differ in scale."""
    return torch.randn(shape) * torch.logspace(-2, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_weight_grids_are_symmetric_and_narrow(bits: int) -> None:
    weight = _weight(6, 5, 3, 3)
    scale = weight_scales(weight, bits)
    codes = weight_codes(weight, scale, bits)
    limit = 2 ** (bits - 1) - 1
    assert weight_limit(bits) == limit
    assert set(codes.unique().tolist()) <= set(range(-limit, limit + 1))
    torch.testing.assert_close(weight_codes(-weight, scale, bits), -codes, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_codes_and_values_match_numpy(bits: int) -> None:
    weight = _weight(4, 3, 2)
    scale = weight_scales(weight, bits)
    limit = 2 ** (bits - 1) - 1
    wide = scale.numpy()[:, None, None]
    codes = np.clip(np.rint(weight.numpy() / wide), -limit, limit)
    np.testing.assert_array_equal(weight_codes(weight, scale, bits).numpy(), codes)
    np.testing.assert_array_equal(weight_values(weight, scale, bits).numpy(), codes * wide)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_values_match_fake_quantisation_of_torch(bits: int) -> None:
    weight = _weight(8, 4, 3, 3)
    scale = weight_scales(weight, bits)
    limit = 2 ** (bits - 1) - 1
    expected = torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(8, dtype=torch.int32), 0, -limit, limit
    )
    torch.testing.assert_close(weight_values(weight, scale, bits), expected, rtol=1e-6, atol=0)


def test_eight_bits_spend_the_whole_grid_on_the_largest_weight() -> None:
    weight = _weight(5, 7)
    expected = np.abs(weight.numpy()).max(axis=1) / 127
    np.testing.assert_allclose(weight_scales(weight, 8).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_low_bits_clip_where_the_squared_error_is_least(bits: int) -> None:
    weight = _weight(6, 40)
    limit = 2 ** (bits - 1) - 1
    for row, scale in zip(weight.numpy(), weight_scales(weight, bits).numpy(), strict=True):
        scales = [np.abs(row).max() * fraction / limit for fraction in CLIP_FRACTIONS]
        errors = [
            np.square(np.clip(np.rint(row / s), -limit, limit) * s - row).sum() for s in scales
        ]
        np.testing.assert_allclose(scale, scales[int(np.argmin(errors))], rtol=1e-5)


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.zeros(2, 3)
    weight[1] = 1.0
    for bits in (2, 8):
        scale = weight_scales(weight, bits)
        assert bool((scale > 0).all())
        torch.testing.assert_close(weight_values(weight, scale, bits), weight)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_gradients_pass_inside_the_range_and_stop_outside(bits: int) -> None:
    limit = 2 ** (bits - 1) - 1
    scale = torch.tensor([0.5, 2.0])
    inside = torch.tensor([-0.9, -0.3, 0.0, 0.6]) * limit
    outside = torch.tensor([-1.4, 1.1, 3.0]) * limit
    weight = torch.cat([inside, outside]) * scale[:, None]
    weight.requires_grad_()
    values = weight_values(weight, scale, bits)
    torch.testing.assert_close(
        values.detach(), weight_codes(weight.detach(), scale, bits) * scale[:, None]
    )
    upstream = torch.randn(2, 7)
    values.backward(upstream)
    mask = torch.tensor([1.0] * 4 + [0.0] * 3)
    torch.testing.assert_close(weight.grad, upstream * mask, rtol=0, atol=0)


@given(
    low=st.floats(-1e4, 1e4),
    width=st.floats(0, 1e4),
    bits=st.integers(2, 8),
)
def test_activation_grids_hold_zero_and_the_range(low: float, width: float, bits: int) -> None:
    high = low + width
    scale, zero_point = activation_grid(low, high, bits)
    top = 2**bits - 1
    assert scale > 0.0
    assert isinstance(zero_point, int)
    assert 0 <= zero_point <= top
    zero = activation_values(torch.zeros(1), scale, zero_point, bits)
    assert zero.item() == 0.0
    if max(high, 0.0) - min(low, 0.0) > 1e-3:  # one step is enough room for the rounded zero point
        assert -zero_point * scale <= min(low, 0.0) + 0.501 * scale
        assert (top - zero_point) * scale >= max(high, 0.0) - 0.501 * scale


def test_an_empty_range_has_a_grid() -> None:
    assert activation_grid(0.0, 0.0, 8) == (1.0, 0)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-1.0, 2.5), (-4.0, 0.0)])
def test_activation_values_match_numpy_and_torch(bits: int, low: float, high: float) -> None:
    tensor = torch.randn(400) * 3
    scale, zero_point = activation_grid(low, high, bits)
    top = 2**bits - 1
    before = tensor.clone()
    values = activation_values(tensor, scale, zero_point, bits)
    torch.testing.assert_close(tensor, before, rtol=0, atol=0)
    codes = np.clip(np.rint(tensor.numpy() / np.float32(scale)) + zero_point, 0, top)
    np.testing.assert_allclose(values.numpy(), (codes - zero_point) * np.float32(scale), rtol=1e-6)
    fake = torch.fake_quantize_per_tensor_affine(tensor, scale, zero_point, 0, top)
    torch.testing.assert_close(values, fake, rtol=1e-6, atol=0)


def test_activation_gradients_pass_inside_the_range_and_stop_outside() -> None:
    scale, zero_point = activation_grid(-1.0, 3.0, 4)
    tensor = torch.tensor([-5.0, -0.9, 0.0, 0.4, 2.9, 3.5], requires_grad=True)
    values = activation_values(tensor, scale, zero_point, 4)
    with torch.no_grad():
        torch.testing.assert_close(values, activation_values(tensor, scale, zero_point, 4))
    values.sum().backward()
    torch.testing.assert_close(tensor.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
