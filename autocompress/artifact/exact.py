"""A compressed model computed as an integer runtime does, to the last rounding.

Fake quantisation multiplies floats that stand for integers, and its sums round in another
order than the runtime's. Where a sum falls near the middle between two codes, the two round
apart; layer by layer one such code disturbs the next ones, until predictions differ by chance.
Here sums of products are whole numbers and exact in any order, and what rounds them is done in
the order of ONNX Runtime's integer kernels.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from autocompress.artifact.integers import ExactAdd, ExactLayer, ExactProduct, Grid, exact_layer
from autocompress.graph.operations import (
    ADD_FUNCTIONS,
    LAYER_FUNCTIONS,
    Inputs,
    OperationTrace,
    TracedOperation,
    operand_owner,
    record_operations,
    weight_owners,
)
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.discovery import MONOTONE_FUNCTIONS, PRODUCT_FUNCTIONS
from autocompress.transform.planned import PlannedMode, map_inputs, site_points

PAIRED_FUNCTIONS = (ADD_FUNCTIONS | PRODUCT_FUNCTIONS) - {"__rmatmul__"}
"""Operations on two tensors, the left one first, that have an integer form."""


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
        self._grids = [Grid.of(quantiser) for _, quantiser in compressed.sites()]
        trace = record_operations(compressed.network, inputs)
        follow = _Follow(trace, points, {number for _, number in plan.folds.values()})
        rounded, skipped = set[int](), set[int]()
        self._pairs: dict[int, ExactAdd | ExactProduct] = {}
        for number, operation, (left, right), end in follow.pairs():
            first, second = self._grids[left], self._grids[right]
            result = None if end is None else self._grids[points[end]]
            if operation.kind in PRODUCT_FUNCTIONS:
                self._pairs[number] = ExactProduct(first, second, result)
            elif operation.residual and result is not None:
                self._pairs[number] = ExactAdd(first, second, result)
            if number in self._pairs and end is not None:
                rounded.add(end)
        self._layers: dict[str, ExactLayer] = {}
        for name, number in follow.layers().items():
            if name not in compressed.record.quantised or name not in plan.inputs:
                continue
            end = follow.end(number)
            result = None if end is None else self._grids[points[end]]
            layer = exact_layer(compressed, name, self._grids[plan.inputs[name]], result)
            if layer is not None:
                self._layers[name] = layer
                skipped |= {plan.folds[name][1]} if name in plan.folds else set()
                rounded |= set() if end is None else {end}
        self._skipped = frozenset(skipped)
        self._points = {number: s for number, s in points.items() if number not in rounded}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take and return what the compressed model does."""
        mode = _ExactMode(
            self._points,
            self._round,
            weight_owners(self.compressed.network),
            self.compressed._layer,
            self._skipped,
        )
        mode.layers, mode.pairs, mode.counts = self._layers, self._pairs, True
        args, kwargs = map_inputs((args, kwargs), self._points, mode.on_point)
        with mode:
            return self.compressed.network(*args, **kwargs)

    def _round(self, tensor: Tensor, site: int) -> Tensor:
        return self._grids[site].round(tensor)


class _ExactMode(PlannedMode):
    """Replaces layers, residual adds and products by their integer forms."""

    layers: Mapping[str, ExactLayer]
    pairs: Mapping[int, ExactAdd | ExactProduct]

    def compute(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run one operation, in integers where there is a form of it."""
        layer = operand_owner(args, self.owners) if name in LAYER_FUNCTIONS else ""
        if layer in self.layers:
            return self.layers[layer].run(func, args, kwargs)
        pair = self.pairs.get(self.count) if name in PAIRED_FUNCTIONS else None
        if isinstance(pair, ExactAdd) and kwargs.get("alpha", 1) != 1:  # runtimes scale in floats
            return pair.result.round(func(*args, **kwargs))
        if pair is not None:
            return pair.run(args[0], args[1])
        return super().compute(name, func, args, kwargs)


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

    def pairs(
        self,
    ) -> Iterator[tuple[int, TracedOperation, tuple[int, int], int | None]]:
        """Yield operations on two quantised tensors: number, operation, sites, end."""
        for number, operation in self.starts:
            sites = [self.points[n] for n in operation.inputs if n in self.points]
            if operation.kind in PAIRED_FUNCTIONS and len(sites) == len(operation.inputs) == 2:
                yield number, operation, (sites[0], sites[1]), self.end(number)

    def end(self, number: int) -> int | None:
        """Return where a tensor is rounded, if only folded operations come between."""
        while number not in self.points:
            readers = self.readers.get(number, [])
            if len(readers) != 1:
                return None
            number, operation = readers[0]
            if operation.kind not in MONOTONE_FUNCTIONS and number not in self.folded:
                return None
        return number
