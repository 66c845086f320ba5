import numpy as np
import pytest
import torch

from autocompress.transform.steps import SMALLEST, round_learned, step_gradient_scale


def _by_autograd(
    tensor: torch.Tensor, step: torch.Tensor, low: int, high: int, scale: float
) -> torch.Tensor:
    """The paper's own formulation: gradients pass round() straight through."""
    step = step * scale + (step * (1 - scale)).detach()
    scaled = (tensor / step).clamp(low, high)
    return (scaled + (scaled.round() - scaled).detach()) * step


@pytest.mark.parametrize(("low", "high"), [(-7, 7), (-1, 1), (0, 15), (-5, 10)])
@pytest.mark.parametrize("shape", [(1,), (6, 1)])
def test_values_and_gradients_are_those_of_the_paper(
    low: int, high: int, shape: tuple[int, ...]
) -> None:
    ours = [torch.randn(6, 40).requires_grad_(), (torch.rand(shape) * 0.3 + 0.05).requires_grad_()]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    upstream = torch.randn(6, 40)
    got = round_learned(*ours, low, high, 0.25)
    expected = _by_autograd(*theirs, low, high, 0.25)
    torch.testing.assert_close(got, expected)
    got.backward(upstream)
    expected.backward(upstream)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_the_gradient_of_a_clipped_value_is_the_limit() -> None:
    # Outside its range, a value is limit x step, of which the gradient is no estimate.
    tensor, step = torch.tensor([9.0, -9.0, 30.0]), torch.tensor([0.5], requires_grad=True)
    round_learned(tensor, step, -3, 7, 1.0)[:2].sum().backward()
    shifted = [round_learned(tensor, torch.tensor([s]), -3, 7, 1.0)[:2].sum() for s in (0.4, 0.6)]
    assert step.grad.item() == pytest.approx((shifted[1] - shifted[0]).item() / 0.2, rel=1e-5)


def test_values_match_fake_quantisation_of_torch() -> None:
    tensor = torch.randn(500)
    got = round_learned(tensor, torch.tensor(0.1), -3, 12, 1.0)
    expected = torch.fake_quantize_per_tensor_affine(tensor, 0.1, 3, 0, 15)
    torch.testing.assert_close(got, expected)
    assert round_learned(tensor.bfloat16(), torch.tensor(0.1), -3, 12, 1.0).dtype == torch.bfloat16


def test_a_step_below_zero_is_taken_for_the_smallest() -> None:
    values = round_learned(torch.randn(9), torch.tensor(-1.0), -3, 3, 1.0)
    np.testing.assert_array_less(values.abs().numpy(), 4 * SMALLEST)


def test_steps_learn_as_fast_as_weights() -> None:
    assert step_gradient_scale(400, 4) == 0.025
    assert step_gradient_scale(0, 0) == 1.0
