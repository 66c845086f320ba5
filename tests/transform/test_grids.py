import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocompress.transform.grids import (
    absolute_scales,
    activation_grid,
    activation_values,
    clipped_scales,
    mean_scales,
    round_uniform,
    weight_limit,
)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_uniform_codes_are_symmetric_and_narrow(bits: int) -> None:
    scaled = torch.randn(500) * 100
    codes = round_uniform(scaled, bits)
    limit = 2 ** (bits - 1) - 1
    assert weight_limit(bits) == limit
    np.testing.assert_array_equal(codes.numpy(), np.clip(np.rint(scaled.numpy()), -limit, limit))
    torch.testing.assert_close(round_uniform(-scaled, bits), -codes, rtol=0, atol=0)


def test_one_bit_has_no_zero() -> None:
    assert round_uniform(torch.tensor([-2.0, -0.1, 0.0, 3.0]), 1).tolist() == [-1, -1, 1, 1]


def test_absolute_scales_spend_the_whole_grid_on_the_largest_weight() -> None:
    shared = torch.randn(5, 2, 7)
    expected = np.abs(shared.numpy()).max(axis=2) / 127
    np.testing.assert_allclose(absolute_scales(shared, 127).numpy(), expected, rtol=1e-6)
    assert bool((absolute_scales(torch.zeros(2, 1, 3), 7) > 0).all())


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_clipped_scales_come_close_to_the_least_squared_error(limit: int) -> None:
    shared = torch.randn(6, 2, 40) * torch.logspace(-2, 1, 6)[:, None, None]
    found = clipped_scales(shared, limit).numpy()

    def error(row: np.ndarray, scale: float) -> float:
        return float(np.square(np.clip(np.rint(row / scale), -limit, limit) * scale - row).sum())

    for row, scale in zip(shared.numpy().reshape(12, 40), found.ravel(), strict=True):
        every = np.linspace(0.05, 1.0, 400) * np.abs(row).max() / limit
        least = min(error(row, tried) for tried in every)
        assert error(row, scale) <= 1.05 * least
    zeros = clipped_scales(torch.zeros(2, 1, 3), limit)
    assert bool((zeros > 0).all())


def test_mean_scales_leave_added_zeros_out() -> None:
    shared = torch.tensor([[[1.0, -3.0, 0.0]]])
    assert mean_scales(shared, torch.tensor([[2.0]])).item() == 2.0
    assert mean_scales(torch.zeros(1, 1, 3), torch.tensor([[3.0]])).item() > 0.0


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
