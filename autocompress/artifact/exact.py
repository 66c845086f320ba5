"""A compressed model computed as an integer runtime does, to the last rounding.

Fake quantisation multiplies floats that stand for integers, and its sums round in another
order than the runtime's. Where a sum falls near the middle between two codes, the two round
apart; layer by layer one such code disturbs the next ones, until predictions differ by chance.
Here sums of products are whole numbers and exact in any order, and what rounds them is done in
the order of ONNX Runtime's integer kernels.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from autocompress.artifact.integers import ExactAdd, ExactLayer, Grid, exact_layer
from autocompress.transform.attention import FUSED, attention
from autocompress.transform.compressed import CompressedModel
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
from autocompress.transform.planned import PlannedMode, map_inputs, site_points

MONOTONE_FUNCTIONS = frozenset({"relu", "relu_", "relu6", "hardtanh"})
"""Operations that a runtime folds into the rounding of what comes before."""


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
        self._adds: dict[int, ExactAdd] = {}
        for number, (left, right, after) in follow.adds().items():
            grids = (self._grids[site] for site in (left, right, points[after]))
            self._adds[number] = ExactAdd(*grids)
            rounded.add(after)
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
        mode.layers, mode.adds = self._layers, self._adds
        args, kwargs = map_inputs((args, kwargs), self._points, mode.on_point)
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
        if name == FUSED:
            with self:
                return attention(*args, **(kwargs or {}))
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
        """Return the sites of both operands and the end of the sum, by the sum's number."""
        found = {}
        for number, operation in self.starts:
            sites = [self.points[n] for n in operation.inputs if n in self.points]
            end = self.end(number)
            if operation.residual and len(sites) == 2 and end is not None:
                found[number] = (sites[0], sites[1], end)
        return found

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
