"""Find which activation tensors of a model are quantised, from the operations it runs."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn

from autocompress.core.candidate import LayerConfig
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import FLOAT
from autocompress.graph.operations import (
    LAYER_FUNCTIONS,
    Inputs,
    OperationTrace,
    TracedOperation,
    record_operations,
)
from autocompress.transform.record import QuantisationPlan, Site

JOIN_FUNCTIONS = frozenset({"cat", "concat", "concatenate"})
PRODUCT_FUNCTIONS = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm"})
POOL_FUNCTIONS = frozenset({"adaptive_avg_pool2d", "avg_pool2d"})
VIEW_FUNCTIONS = frozenset(
    {
        *("__getitem__", "reshape", "view", "flatten", "permute", "transpose", "pad", "chunk"),
        *("contiguous", "squeeze", "unsqueeze", "max_pool2d", "max_pool1d", "dropout", "split"),
        *("unbind", "unflatten", "movedim", "swapaxes", "expand", "repeat_interleave", "narrow"),
    }
)
"""Operations whose output lies on the grid of their input."""

PLANNED_FUNCTIONS = (
    LAYER_FUNCTIONS | JOIN_FUNCTIONS | PRODUCT_FUNCTIONS | POOL_FUNCTIONS | VIEW_FUNCTIONS
)
"""Operations that ask for grids themselves, or pass them on."""

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
MONOTONE_FUNCTIONS = frozenset({"relu", "relu_", "relu6"})
"""Operations that a runtime folds into the rounding of what comes before: they end at zero, where
their grid does. That of a `hardtanh` ends half a step below its lower bound, so it stays apart."""

_Use = tuple[tuple[int, int], str, int]
"""One use of a tensor: the tensors whose grid it needs, the consumer, the bits."""

_Reader = tuple[int, str, bool]
"""One operation that reads a tensor: its output, its kind, whether it asks for no grids."""


def discover_plan(
    model: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, LayerConfig],
    config: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
) -> QuantisationPlan:
    """Run a model once and plan its tensor quantisers.

    Args:
        model: The model after surgery, in eval mode; not changed.
        inputs: Positional and keyword arguments of one forward call.
        layers: Configuration by layer name; others stay unquantised.
        config: As for `plan_grids`.

    Returns:
        What `plan_grids` makes of its operations.
    """
    return plan_grids(record_operations(model, inputs), layers, config)


def plan_grids(
    trace: OperationTrace,
    layers: Mapping[str, LayerConfig],
    config: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
) -> QuantisationPlan:
    """Plan the tensor quantisers of a model from the operations it runs.

    Each activation tensor gets one grid, at the largest bits among its
    consumers. Residual adds, concatenations, average pools and the products
    inside attention, whose operands all come from quantised layers, take
    theirs at `join_bits`, 8 unless said otherwise, because that is what
    integer runtimes fuse. So does what a convolution gives to any other
    operation, such as a SiLU: their integer kernels end in a rounding. Views
    of a quantised tensor share its grid.

    Args:
        trace: The operations.
        layers: Configuration by layer name; others stay unquantised.
        config: The bits of joins, and whether their operands share a grid.

    Returns:
        The plan; it has no sites when no layer is quantised.
    """
    planner = _Planner(layers, config, trace.outputs)
    for operation in trace.operations:
        planner.visit(operation)
    return planner.plan()


class _Planner:
    """Follows tensors, by their numbers, from operation to operation."""

    def __init__(
        self,
        layers: Mapping[str, LayerConfig],
        config: QuantisationConfig,
        outputs: Collection[int],
    ) -> None:
        self.layers, self.config, self.outputs = layers, config, outputs
        self.root: dict[int, int] = {}
        self.integer: dict[int, bool | None] = {}
        self.readers: dict[int, list[_Reader]] = {}
        self.convolved: dict[int, str] = {}
        self.consumers: dict[int, list[_Use]] = {}
        self.produced_by: dict[int, str] = {}
        self.folds: dict[str, tuple[str, int, int]] = {}
        self.count = 0

    def visit(self, operation: TracedOperation) -> None:
        inputs, kind = operation.inputs, operation.kind
        integer = self._consume(operation)
        other = not (operation.residual or kind in PLANNED_FUNCTIONS)
        for number in inputs:
            self.readers.setdefault(number, []).append((self.count, kind, other))
        if integer and kind in CONVOLUTIONS:
            self.convolved[self.count] = operation.owner
        for _ in range(operation.outputs):
            views = kind in VIEW_FUNCTIONS and bool(inputs)
            self.root[self.count] = self._root(inputs[0]) if views else self.count
            self.integer[self.count] = integer
            if kind in LAYER_FUNCTIONS and _has_outputs_second(operation):
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
        if kind in PRODUCT_FUNCTIONS:
            if kinds != {True} or len(inputs) < 2:
                return False
        elif False in kinds or not (joined or kind in POOL_FUNCTIONS):
            return False not in kinds or not joined
        for operand, number in enumerate(inputs):
            self._note(number, f"{kind.strip('_')}{self.count}.{operand}", self.config.join_bits)
            if joined and self.config.share_joins:
                self._unite(number, inputs[0])
        return True

    def _unite(self, number: int, other: int) -> None:
        """Let two tensors share one grid."""
        root, kept = self._root(number), self._root(other)
        if root != kept:
            self.root = {n: kept if r == root else r for n, r in {**self.root, root: kept}.items()}
            self.consumers[kept] += self.consumers.pop(root)

    def _note(self, number: int, consumer: str, bits: int) -> None:
        root = self._root(number)
        self.consumers.setdefault(root, []).append(((root, number), consumer, bits))

    def _fold(self, norm: str, number: int) -> None:
        layer = self.produced_by.get(number, "")
        if layer and norm:
            self.folds[layer] = (norm, self.count, number)

    def _round_output(self, number: int, norms: Collection[int]) -> None:
        """Give the output of a convolution a grid, if only others read it than what asks for one.

        Batch norms that are folded and what is computed with the rounding come first.
        """
        owner, readers = self.convolved[number], list(self._reading(number))
        while len(readers) == 1 and (readers[0][0] in norms or readers[0][1] in MONOTONE_FUNCTIONS):
            number = readers[0][0]
            readers = list(self._reading(number))
        if number not in self.consumers and readers and all(other for _, _, other in readers):
            self._note(number, f"{owner}.output", self.config.join_bits)

    def _reading(self, number: int) -> Iterator[_Reader]:
        """Yield the operations that read a tensor or a view of it."""
        for reader in self.readers.get(number, []):
            if reader[1] in VIEW_FUNCTIONS:
                yield from self._reading(reader[0])
            else:
                yield reader

    def plan(self) -> QuantisationPlan:
        folds = {
            layer: (norm, operation)
            for layer, (norm, operation, number) in self.folds.items()
            if len(self.readers[number]) == 1 and number not in self.outputs
        }
        norms = {operation for _, operation in folds.values()}
        for number in self.convolved:
            self._round_output(number, norms)
        sites: list[Site] = []
        inputs: dict[str, int] = {}
        for uses in self.consumers.values():
            for _, consumer, _ in uses:
                if consumer.endswith(".input"):
                    inputs[consumer.removesuffix(".input")] = len(sites)
            sites.append(_site(uses))
        return QuantisationPlan(sites=tuple(sites), inputs=inputs, folds=folds)


def _has_outputs_second(layer: TracedOperation) -> bool:
    """Tell whether the outputs of a layer lie along axis 1, as batch norms read them."""
    return layer.kind.startswith("conv") or (layer.kind == "linear" and len(layer.shapes[0]) == 2)


def _site(uses: Sequence[_Use]) -> Site:
    points = sorted({point for tensors, _, _ in uses for point in tensors})
    return Site(name=uses[0][1], bits=max(bits for _, _, bits in uses), points=tuple(points))
