"""Quantisation grids as pure functions: scales, codes and their float values."""

import torch
from torch import Tensor

CLIP_FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Clipping points that are tried, as fractions of the largest weight."""


def weight_limit(bits: int, *, reduced: bool = False) -> int:
    """Return the largest code of a symmetric, narrow weight grid.

    Args:
        bits: 1 to 8.
        reduced: Whether codes keep to 7 bits, so that two of them times
            8-bit activations fit into 16 bits together.

    Example:
        >>> weight_limit(8), weight_limit(2), weight_limit(1), weight_limit(8, reduced=True)
        (127, 1, 1, 63)
    """
    return max(1, int(2 ** (min(bits, 7 if reduced else 8) - 1)) - 1)


def round_uniform(scaled: Tensor, bits: int, *, reduced: bool = False) -> Tensor:
    """Round weights, in units of their scales, to the codes of a uniform grid.

    Args:
        scaled: Any shape.
        bits: 1 to 8. Of one bit, codes are -1 and 1; zero goes to 1.
        reduced: As for `weight_limit`.

    Returns:
        Codes in [-limit, limit], as floats of the same shape.
    """
    if bits == 1:
        return torch.where(scaled < 0, -1.0, 1.0).to(scaled.dtype)
    limit = weight_limit(bits, reduced=reduced)
    return torch.round(scaled).clamp(-limit, limit)


def absolute_scales(shared: Tensor, limit: int) -> Tensor:
    """Return the scales at which the largest weight has the largest code.

    Args:
        shared: Weights, outputs x groups x those that share a scale.
        limit: The largest code.

    Returns:
        Positive scales, outputs x groups.
    """
    return shared.abs().amax(dim=2).clamp_min(torch.finfo(torch.float32).tiny * 2**20) / limit


def clipped_scales(shared: Tensor, limit: int) -> Tensor:
    """Return the scales with the least squared error of rounding.

    The best of a few clipping points is refined: given its codes, the best
    scale is a least-squares fit.

    Args:
        shared: Weights, outputs x groups x those that share a scale.
        limit: The largest code.

    Returns:
        Positive scales, outputs x groups.
    """
    largest = absolute_scales(shared, limit)
    best_scale, best_error = largest, torch.full_like(largest, torch.inf)

    def compare(scale: Tensor) -> None:
        nonlocal best_scale, best_error
        codes = torch.round(shared / scale[..., None]).clamp_(-limit, limit)
        error = codes.mul_(scale[..., None]).sub_(shared).square_().sum(dim=2)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)

    for fraction in CLIP_FRACTIONS:
        compare(largest * fraction)
    for _ in range(2):
        codes = torch.round(shared / best_scale[..., None]).clamp_(-limit, limit)
        fitted = (codes * shared).sum(dim=2) / codes.square().sum(dim=2).clamp_min(1.0)
        compare(torch.where(fitted > 0, fitted, best_scale))
    return best_scale


def mean_scales(shared: Tensor, counts: Tensor) -> Tensor:
    """Return mean magnitudes, the best scales of binary weights (Rastegari et al. 2016).

    Args:
        shared: Weights, outputs x groups x those that share a scale, zeros added.
        counts: How many of them are weights, outputs x groups.
    """
    tiny = torch.finfo(torch.float32).tiny * 2**20
    return (shared.abs().sum(dim=2) / counts).clamp_min(tiny)


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
