"""Layers and residual adds in whole numbers, rounded in the order of ONNX Runtime's kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.artifact.folding import fold_layer
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.quantiser import TensorQuantiser

WHOLE = 2**24
"""Whole numbers up to this are exact in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A grid as the file stores it: float32 scale, zero point, largest code."""

    scale: Tensor
    zero_point: int
    top: int

    @classmethod
    def of(cls, quantiser: TensorQuantiser) -> "Grid":
        """Round the scale of a grid to float32."""
        return cls(
            scale=torch.tensor(quantiser.scale, dtype=torch.float32),
            zero_point=quantiser.zero_point,
            top=2**quantiser.bits - 1,
        )

    def round(self, values: Tensor) -> Tensor:
        """Round values to the grid, as QuantizeLinear and DequantizeLinear do."""
        return self.values((values / self.scale).round_())

    def codes(self, values: Tensor) -> Tensor:
        """Return the codes, relative to the zero point, of values that lie on the grid."""
        return (values * (1.0 / self.scale)).round_()

    def values(self, codes: Tensor) -> Tensor:
        """Limit codes to the grid, in place, and return what they stand for."""
        low, high = -self.zero_point, self.top - self.zero_point
        return codes.clamp_(low, high).mul_(self.scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactLayer:
    """One layer in integers.

    Attributes:
        codes: Whole numbers, shape of the weight; float64 where float32 could
            not hold the sums.
        bias: Whole numbers of the same type, shaped to be added to the outputs.
        steps: float32, what one of the bias stands for, shaped likewise.
        scales: float32, those of the weight, shaped likewise.
        source: The grid of its input.
        result: The grid that its output is rounded to next; None where the
            output stays in floating point.
    """

    codes: Tensor
    bias: Tensor
    steps: Tensor
    scales: Tensor
    source: Grid
    result: Grid | None

    def run(
        self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """Compute the layer as its function would, values in and values out."""
        numbers = self.source.codes(args[0]).to(self.codes.dtype)
        sums = func(numbers, self.codes, None, *args[3:], **kwargs)
        scales = self.scales * self.source.scale
        if func is nn.functional.linear and numbers.dim() > 2:  # in the file a MatMul, then an Add
            values = sums.float().mul_(scales).add_(self.bias.float() * self.steps)
            return values if self.result is None else self.result.round(values)
        return _rescaled(sums.add_(self.bias), scales, self.result)


@dataclass(frozen=True, slots=True)
class ExactProduct:
    """A matrix product of two activations in integers.

    Attributes:
        left: The grid of the first operand.
        right: The grid of the second.
        result: The grid that the product is rounded to; None where it stays
            in floating point.
    """

    left: Grid
    right: Grid
    result: Grid | None

    def run(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiply matrices of values on two grids."""
        kind = torch.float32 if left.shape[-1] * self.left.top * self.right.top <= WHOLE else None
        codes = [grid.codes(v) for grid, v in ((self.left, left), (self.right, right))]
        sums = torch.matmul(*(c.to(kind or torch.float64) for c in codes))
        return _rescaled(sums, self.left.scale * self.right.scale, self.result)


class ExactAdd:
    """A residual add in integers, as a table of what any two codes give.

    Args:
        left: The grid of the first operand.
        right: The grid of the second.
        result: The grid that the sum is rounded to.
    """

    def __init__(self, left: Grid, right: Grid, result: Grid) -> None:
        self.left, self.right, self.result = left, right, result
        self.first = left.zero_point * (right.top + 1) + right.zero_point
        ratios = left.scale / result.scale, right.scale / result.scale
        zeros = torch.tensor([left.zero_point, right.zero_point], dtype=torch.float32)
        offset = result.zero_point - _fused(ratios[0], zeros[0], ratios[1] * zeros[1])
        rows = torch.arange(left.top + 1, dtype=torch.float32)[:, None]
        columns = torch.arange(right.top + 1, dtype=torch.float32)
        total = _fused(rows, ratios[0], _fused(columns, ratios[1], offset))
        self.sums = result.values(total.round_().sub_(result.zero_point)).flatten()

    def run(self, left: Tensor, right: Tensor) -> Tensor:
        """Add values on two grids, and round the sum to the third."""
        numbers = self.left.codes(left).mul_(self.right.top + 1).add_(self.right.codes(right))
        places = numbers.add_(self.first).to(torch.int32)
        return self.sums.index_select(0, places.flatten()).view_as(places)


def exact_layer(
    compressed: CompressedModel, name: str, source: Grid, result: Grid | None
) -> ExactLayer | None:
    """Write a layer in integers.

    Args:
        compressed: A calibrated model.
        name: A quantised layer whose input is quantised.
        source: The grid of its input.
        result: The grid that its output is rounded to next, if any.

    Returns:
        The layer; None where no kernel computes it in integers.
    """
    folded = fold_layer(compressed, name)
    bias = folded.bias_codes()
    if bias is None or folded.bias_scales is None:
        return None
    largest = max(source.zero_point, source.top - source.zero_point)
    sums = largest * folded.codes.flatten(1).abs().long().sum(dim=1) + bias.long().abs()
    kind = torch.float32 if int(sums.max()) <= WHOLE else torch.float64
    spatial = (1,) * (folded.codes.dim() - 2)
    return ExactLayer(
        codes=folded.codes.to(kind),
        bias=bias.to(kind).reshape(-1, *spatial),
        steps=folded.bias_scales.reshape(-1, *spatial),
        scales=folded.scales.reshape(-1, *spatial),
        source=source,
        result=result,
    )


def _rescaled(sums: Tensor, scales: Tensor, result: Grid | None) -> Tensor:
    """Turn sums of products of codes, in place, into values; on a grid if there is one."""
    whole = sums.float()
    if result is None:
        return whole.mul_(scales)
    return result.values(whole.mul_(scales / result.scale).round_())


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a * b + c in float32, rounded once as a fused multiply-add does."""
    return (a.double() * b.double() + c.double()).float()
