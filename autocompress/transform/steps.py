"""Learned steps: rounding whose step sizes are trained with the weights (LSQ)."""

import math
from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-8
"""Least step; a step must not train below zero."""


def round_learned(
    tensor: Tensor, step: Tensor, low: int, high: int, gradient_scale: float
) -> Tensor:
    """Round to the multiples of a step; both receive gradients.

    Learned step size quantisation (Esser et al. 2020, eq. 1-3): the gradient
    of the tensor passes inside the range, that of the step is
    round(x/s) - x/s inside and the limit outside.

    Args:
        tensor: Any shape.
        step: Steps > 0 that broadcast with the tensor.
        low: Smallest code.
        high: Largest code.
        gradient_scale: Factor on the step's gradient, see `step_gradient_scale`.

    Returns:
        Codes times steps, of the tensor's shape and type.
    """
    result: Tensor = _RoundLearned.apply(  # type: ignore[no-untyped-call]
        tensor, step, low, high, gradient_scale
    )
    return result


def step_gradient_scale(count: int, high: int) -> float:
    """Return 1 / sqrt(count x high), which makes steps learn as fast as weights do.

    Args:
        count: Weights, or features of one example, that share the step.
        high: The largest code.

    Example:
        >>> step_gradient_scale(9, 1)
        0.3333333333333333
    """
    return 1.0 / math.sqrt(max(1, count) * max(1, high))


class _RoundLearned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, step: Tensor, low: int, high: int, gradient_scale: float
    ) -> Tensor:
        step = step.clamp_min(SMALLEST)
        scaled = tensor.float() / step
        codes = scaled.round().clamp_(low, high)
        inside = (scaled >= low) & (scaled <= high)
        ctx.save_for_backward(inside, codes - scaled.mul_(inside))
        ctx.shape, ctx.gradient_scale = step.shape, gradient_scale
        return (codes * step).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        inside, slope = ctx.saved_tensors
        to_step = (gradient.float() * slope).sum_to_size(ctx.shape) * ctx.gradient_scale
        return gradient * inside, to_step, None, None, None
