"""A compressed model computed as an integer runtime does, to the last rounding.

Fake quantisation multiplies floats that stand for integers, and its sums round in another
order than the runtime's. Where a sum falls near the middle between two codes, the two round
apart; layer by layer one such code disturbs the next ones, until predictions differ by chance.
Here sums of products are whole numbers and exact in any order, and what rounds them is done in
the order of ONNX Runtime's integer kernels.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.artifact.folding import fold_layer
from autocompress.transform.compressed import (
    CompressedModel,
    PlannedMode,
    TensorQuantiser,
    map_inputs,
    site_points,
)
from autocompress.transform.operations import (
    ADD_FUNCTIONS,
    LAYER_FUNCTIONS,
    Inputs,
    OperationTrace,
    TracedOperation,
    operand_owner,
    record_operations,
    weight_owners,
)

WHOLE = 2**24
"""Whole numbers up to this are exact in float32."""

MONOTONE_FUNCTIONS = frozenset({"relu", "relu_", "relu6", "hardtanh"})
"""Operations that a runtime folds into the rounding of what comes before."""


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
        return self.values(torch.round(values / self.scale))

    def codes(self, values: Tensor) -> Tensor:
        """Return the codes, relative to the zero point, of values that lie on the grid."""
        return torch.round(values * (1.0 / self.scale))

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
        scales: float32, shaped likewise.
        source: The grid of its input.
        result: The grid that its output is rounded to next; None where the
            output stays in floating point.
    """

    codes: Tensor
    bias: Tensor
    scales: Tensor
    source: Grid
    result: Grid | None

    def run(
        self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """Compute the layer as its function would, values in and values out."""
        numbers = self.source.codes(args[0]).to(self.codes.dtype)
        sums = func(numbers, self.codes, None, *args[3:], **kwargs).add_(self.bias).float()
        steps = self.scales * self.source.scale
        if self.result is None:
            return sums.mul_(steps)
        return self.result.values(sums.mul_(steps / self.result.scale).round_())


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactAdd:
    """A residual add in integers: the grids of what is added, and of the sum."""

    left: Grid
    right: Grid
    result: Grid

    def run(self, left: Tensor, right: Tensor) -> Tensor:
        """Add values on two grids, and round the sum to the third."""
        zero = self.result.zero_point
        first, second = self.left.scale / self.result.scale, self.right.scale / self.result.scale
        zeros = torch.tensor([self.left.zero_point, self.right.zero_point], dtype=torch.float32)
        offset = zero - _fused(first, zeros[0], second * zeros[1])
        total = _fused(self.right.codes(right) + zeros[1], second, offset)
        total = _fused(self.left.codes(left) + zeros[0], first, total)
        return self.result.values(total.round_().sub_(zero))


class ExactModel(nn.Module):
    """Computes what the exported file does where that runs in integers.

    Elsewhere, in layers and operations that stay in floating point, it is
    the compressed model with its batch norms folded.

    Args:
        compressed: A calibrated model on the CPU; shared, not copied.
        inputs: Positional and keyword arguments of one forward call.
    """

    def __init__(self, compressed: CompressedModel, inputs: Inputs) -> None:
        super().__init__()
        self.compressed = compressed.eval()
        plan = compressed.record.plan
        points = site_points(plan)
        self._grids = [
            Grid.of(q) for q in compressed.quantisers if isinstance(q, TensorQuantiser)
        ]
        trace = record_operations(compressed.network, inputs)
        follow = _Follow(trace, points, {number for _, number in plan.folds.values()})
        self._adds = {
            number: ExactAdd(left=self._grids[a], right=self._grids[b], result=self._grids[c])
            for number, (a, b, c) in follow.adds().items()
        }
        rounded = {site for _, _, site in follow.adds().values()}
        self._layers: dict[str, ExactLayer] = {}
        skipped = set()
        for name, number in follow.layers().items():
            if name not in compressed.record.quantised or name not in plan.inputs:
                continue
            site = follow.site_after(number)
            result = None if site is None else self._grids[site]
            layer = exact_layer(compressed, name, self._grids[plan.inputs[name]], result)
            if layer is not None:
                self._layers[name] = layer
                skipped |= {plan.folds[name][1]} if name in plan.folds else set()
                rounded |= {site}
        self._skipped = frozenset(skipped)
        self._left = {n: site for n, site in points.items() if site not in rounded}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take and return what the compressed model does."""
        mode = _ExactMode(
            self._left,
            self._round,
            weight_owners(self.compressed.network),
            self.compressed._layer,
            self._skipped,
        )
        mode.layers, mode.adds = self._layers, self._adds
        args, kwargs = map_inputs((args, kwargs), self._left, mode.on_point)
        with mode:
            return self.compressed.network(*args, **kwargs)

    def _round(self, tensor: Tensor, site: int) -> Tensor:
        return self._grids[site].round(tensor)


class _ExactMode(PlannedMode):
    """Replaces layers and residual adds by their integer forms."""

    layers: Mapping[str, ExactLayer]
    adds: Mapping[int, ExactAdd]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, in integers where there is a form of it."""
        name = getattr(func, "__name__", "")
        layer = operand_owner(args, self.owners) if name in LAYER_FUNCTIONS else ""
        if layer in self.layers:
            return self._place(self.layers[layer].run(func, args, kwargs or {}))
        if name in ADD_FUNCTIONS and self.count in self.adds:
            return self._place(self.adds[self.count].run(args[0], args[1]))
        return super().__torch_function__(func, types, args, kwargs)


class _Follow:
    """Finds out where the outputs of layers and adds are rounded."""

    def __init__(
        self, trace: OperationTrace, points: Mapping[int, int], folded: Collection[int]
    ) -> None:
        self.points, self.folded = points, folded
        self.starts: list[tuple[int, TracedOperation]] = []
        self.readers: dict[int, list[tuple[int, TracedOperation]]] = {}
        count = 0
        for operation in trace.operations:
            self.starts.append((count, operation))
            for number in operation.inputs:
                self.readers.setdefault(number, []).append((count, operation))
            count += operation.outputs

    def layers(self) -> dict[str, int]:
        """Return the number of every layer's output; layers that run twice are left out."""
        found = [(o.owner, n) for n, o in self.starts if o.kind in LAYER_FUNCTIONS and o.owner]
        often = Counter(name for name, _ in found)
        return {name: number for name, number in found if often[name] == 1}

    def adds(self) -> dict[int, tuple[int, int, int]]:
        """Return the sites of both operands and of the sum, by the number of the sum."""
        found = {}
        for number, operation in self.starts:
            sites = [self.points.get(n) for n in operation.inputs]
            after = self.site_after(number)
            if operation.residual and len(sites) == 2 and None not in (*sites, after):
                found[number] = (*sites, after)
        return found

    def site_after(self, number: int) -> int | None:
        """Return the site that a tensor is rounded at, if nothing but folded operations comes between."""
        while number not in self.points:
            readers = self.readers.get(number, [])
            if len(readers) != 1:
                return None
            number, operation = readers[0]
            if operation.kind not in MONOTONE_FUNCTIONS and number not in self.folded:
                return None
        return self.points[number]


def exact_layer(
    compressed: CompressedModel, name: str, source: Grid, result: Grid | None
) -> ExactLayer | None:
    """Write a layer in integers; None where its bias does not fit into 32 bits.

    Args:
        compressed: A calibrated model.
        name: A quantised layer whose input is quantised.
        source: The grid of its input.
        result: The grid that its output is rounded to next, if any.
    """
    folded = fold_layer(compressed, name)
    bias = folded.bias_codes()
    if bias is None:
        return None
    largest = max(source.zero_point, source.top - source.zero_point)
    sums = largest * folded.codes.flatten(1).abs().long().sum(dim=1) + bias.long().abs()
    kind = torch.float32 if int(sums.max()) <= WHOLE else torch.float64
    layer = compressed.network.get_submodule(name)
    spatial = () if isinstance(layer, nn.Linear) else (1,) * (folded.codes.dim() - 2)
    return ExactLayer(
        codes=folded.codes.to(kind),
        bias=bias.to(kind).reshape(-1, *spatial),
        scales=folded.scales.reshape(-1, *spatial),
        source=source,
        result=result,
    )


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a * b + c in float32, rounded once as a fused multiply-add does."""
    return a.double().mul(b.double()).add_(c.double()).float()
