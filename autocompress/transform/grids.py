"""Quantisation grids as pure functions: scales, codes and their float values."""

import torch
from torch import Tensor

CLIP_FRACTIONS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def weight_limit(bits: int) -> int:
    """Return the largest code of a symmetric, narrow weight grid.

    Example:
        >>> weight_limit(8), weight_limit(2)
        (127, 1)
    """
    return int(2 ** (bits - 1)) - 1


def weight_scales(weight: Tensor, bits: int) -> Tensor:
    """Choose one scale per output channel of a weight.

    At 8 bits the largest weight sets the scale. Below, the clipping point
    with the least squared error among a few fractions of it is taken.

    Args:
        weight: Output channels first, any further axes.
        bits: 2 to 8.

    Returns:
        One positive scale per output channel.
    """
    rows = weight.detach().flatten(1).float()
    limit = weight_limit(bits)
    largest = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny * 2**20)
    if bits == 8:
        return largest / limit
    best_scale = largest / limit
    best_error = torch.full_like(largest, torch.inf)
    for fraction in CLIP_FRACTIONS:
        scale = largest * fraction / limit
        error = (weight_values(rows, scale, bits) - rows).square().sum(dim=1)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return best_scale


def weight_codes(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round a weight to the integers of its grid.

    Args:
        weight: Output channels first.
        scale: One scale per output channel.
        bits: 2 to 8.

    Returns:
        Codes in [-limit, limit], as floats of the weight's shape.
    """
    limit = weight_limit(bits)
    return torch.round(weight / _per_channel(scale, weight)).clamp(-limit, limit)


def weight_values(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round a weight to the values of its grid; gradients pass straight through.

    The straight-through estimator of Bengio et al. 2013: inside the clipping
    range the gradient is that of the identity, outside it is zero.
    """
    wide = _per_channel(scale, weight)
    clipped = weight.clamp(-wide * weight_limit(bits), wide * weight_limit(bits))
    if not clipped.requires_grad:
        return weight_codes(weight, scale, bits) * wide
    return clipped + (torch.round(clipped / wide) * wide - clipped).detach()


def activation_grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Choose the affine grid of an activation tensor; zero is always on it.

    Args:
        low: Smallest value seen.
        high: Largest value seen.
        bits: 2 to 8.

    Returns:
        The scale and the code that stands for zero, in [0, 2**bits - 1].

    Example:
        >>> activation_grid(-0.25, 3.5, 4)
        (0.25, 1)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    if not scale > torch.finfo(torch.float32).tiny:  # its inverse would be infinite
        return 1.0, 0
    return scale, max(0, min(steps, round(-low / scale)))


def activation_values(tensor: Tensor, scale: float, zero_point: int, bits: int) -> Tensor:
    """Round an activation tensor to the values of its grid.

    The zero point drops out of the arithmetic: rounding and clamping happen
    on codes relative to it. Gradients pass straight through inside the range.

    Args:
        tensor: Any shape, floating point.
        scale: Step of the grid, > 0.
        zero_point: Code of zero.
        bits: 2 to 8.

    Returns:
        A tensor of the same shape and type.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    if not (torch.is_grad_enabled() and tensor.requires_grad):
        return (tensor * (1.0 / scale)).round_().clamp_(low, high).mul_(scale)
    clipped = tensor.clamp(low * scale, high * scale)
    return clipped + (torch.round(clipped / scale) * scale - clipped).detach()


def _per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *([1] * (weight.dim() - 1)))
