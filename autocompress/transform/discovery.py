"""Find which activation tensors of a model are quantised, from the operations it runs."""

from collections.abc import Mapping, Sequence

from torch import nn

from autocompress.core.candidate import LayerConfig
from autocompress.core.target import FLOAT
from autocompress.transform.operations import (
    LAYER_FUNCTIONS,
    Inputs,
    OperationTrace,
    TracedOperation,
    record_operations,
)
from autocompress.transform.record import QuantisationPlan, Site

JOIN_FUNCTIONS = frozenset({"cat", "concat", "concatenate"})
POOL_FUNCTIONS = frozenset({"adaptive_avg_pool2d", "avg_pool2d"})
VIEW_FUNCTIONS = frozenset(
    {
        *("__getitem__", "reshape", "view", "flatten", "permute", "transpose", "pad", "chunk"),
        *("contiguous", "squeeze", "unsqueeze", "max_pool2d", "max_pool1d", "dropout", "split"),
    }
)
"""Operations whose output lies on the grid of their input."""

JOIN_BITS = 8
"""Bits of the inputs of residual adds, concatenations and average pools."""


def discover_plan(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, LayerConfig]
) -> QuantisationPlan:
    """Run a model once and plan its tensor quantisers.

    Args:
        model: The model after surgery, in eval mode; not changed.
        inputs: Positional and keyword arguments of one forward call.
        layers: Configuration by layer name; others stay unquantised.

    Returns:
        What `plan_grids` makes of its operations.
    """
    return plan_grids(record_operations(model, inputs), layers)


def plan_grids(trace: OperationTrace, layers: Mapping[str, LayerConfig]) -> QuantisationPlan:
    """Plan the tensor quantisers of a model from the operations it runs.

    Each activation tensor gets one grid, at the largest bits among its
    consumers. Residual adds, concatenations and average pools whose operands
    all come from quantised layers take theirs at 8 bits, because that is what
    integer runtimes fuse. Views of a quantised tensor share its grid.

    Args:
        trace: The operations.
        layers: Configuration by layer name; others stay unquantised.

    Returns:
        The plan; it has no sites when no layer is quantised.
    """
    planner = _Planner(layers)
    for operation in trace.operations:
        planner.visit(operation)
    return planner.plan()


class _Planner:
    """Follows tensors, by their numbers, from operation to operation."""

    def __init__(self, layers: Mapping[str, LayerConfig]) -> None:
        self.layers = layers
        self.root: dict[int, int] = {}
        self.integer: dict[int, bool | None] = {}
        self.uses: dict[int, int] = {}
        self.consumers: dict[int, list[tuple[int, str, int]]] = {}
        self.produced_by: dict[int, str] = {}
        self.folds: dict[str, tuple[str, int, int]] = {}
        self.count = 0

    def visit(self, operation: TracedOperation) -> None:
        inputs, kind = operation.inputs, operation.kind
        integer = self._consume(operation)
        for number in inputs:
            self.uses[number] = self.uses.get(number, 0) + 1
        for _ in range(operation.outputs):
            views = kind in VIEW_FUNCTIONS and bool(inputs)
            self.root[self.count] = self._root(inputs[0]) if views else self.count
            self.integer[self.count] = integer
            if kind in LAYER_FUNCTIONS:
                self.produced_by[self.count] = operation.owner
            if kind == "batch_norm" and inputs:
                self._fold(operation.owner, inputs[0])
            self.count += 1

    def _root(self, number: int) -> int:
        """Return the tensor whose grid a tensor lies on; inputs of the model are their own."""
        return self.root.get(number, number)

    def _consume(self, operation: TracedOperation) -> bool | None:
        """Note what an operation consumes; tell whether it computes in integers.

        None stands for what no layer has touched: it suits either kind.
        """
        kind, inputs = operation.kind, operation.inputs
        if kind in LAYER_FUNCTIONS:
            config = self.layers.get(operation.owner, LayerConfig())
            if not inputs or config.activation_bits == FLOAT or config.weight_bits == FLOAT:
                return False
            self._note(inputs[0], f"{operation.owner}.input", config.activation_bits)
            return True
        kinds = {self.integer.get(number) for number in inputs}
        if True not in kinds:
            return False if False in kinds else None
        joined = kind in JOIN_FUNCTIONS or operation.residual
        if False not in kinds and (joined or kind in POOL_FUNCTIONS):
            for operand, number in enumerate(inputs):
                self._note(number, f"{kind.strip('_')}{self.count}.{operand}", JOIN_BITS)
        return False not in kinds or not joined

    def _note(self, number: int, consumer: str, bits: int) -> None:
        self.consumers.setdefault(self._root(number), []).append((number, consumer, bits))

    def _fold(self, norm: str, number: int) -> None:
        layer = self.produced_by.get(number, "")
        if layer and norm:
            self.folds[layer] = (norm, self.count, number)

    def plan(self) -> QuantisationPlan:
        sites: list[Site] = []
        inputs: dict[str, int] = {}
        for root, uses in self.consumers.items():
            for _, consumer, _ in uses:
                if consumer.endswith(".input"):
                    inputs[consumer.removesuffix(".input")] = len(sites)
            sites.append(_site(root, uses))
        folds = {
            layer: (norm, operation)
            for layer, (norm, operation, number) in self.folds.items()
            if self.uses[number] == 1
        }
        return QuantisationPlan(sites=tuple(sites), inputs=inputs, folds=folds)


def _site(root: int, uses: Sequence[tuple[int, str, int]]) -> Site:
    points = sorted({root, *(number for number, _, _ in uses)})
    return Site(name=uses[0][1], bits=max(bits for _, _, bits in uses), points=tuple(points))
