"""What a runtime executes for many candidates at once: precisions, and conversions between."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autocompress.artifact.executed import FUSED_FUNCTIONS
from autocompress.core.target import OPENVINO, Target
from autocompress.cost.weightless import weightless_kernels
from autocompress.graph.operations import LAYER_FUNCTIONS, OperationTrace, TracedOperation
from autocompress.graph.structure import ModelGraph
from autocompress.transform.discovery import (
    CONVOLUTIONS,
    JOIN_FUNCTIONS,
    MONOTONE_FUNCTIONS,
    PLANNED_FUNCTIONS,
    POOL_FUNCTIONS,
    PRODUCT_FUNCTIONS,
    VIEW_FUNCTIONS,
)

Mask = NDArray[np.bool_]
Shares = NDArray[np.float64]

ROUNDED_FUNCTIONS = MONOTONE_FUNCTIONS | {"batch_norm"}
"""Operations between a convolution and the rounding of its output."""

UNTOUCHED, FLOATS, INTEGERS = -1, 0, 1
"""What a tensor comes from: the inputs alone, or layers computed in either kind of numbers."""


@dataclass(kw_only=True)
class Execution:
    """What n candidates execute.

    Attributes:
        present: For each layer, which candidates run it.
        integer: For each layer, which compute it in integers.
        additions: Residual additions: who computes them in integers, who in
            floats, and elements.
        quantised: Tensors that are quantised by an operation of their own:
            by which candidates, and elements.
        dequantised: Tensors that are dequantised for an operation, likewise.
        weightless: Pools and attentions, as `weightless_kernels` lists them:
            who runs them, and what share of that is computed in integers.
        others: Number of the other operations that take time.
    """

    present: dict[str, Mask] = field(default_factory=dict)
    integer: dict[str, Mask] = field(default_factory=dict)
    additions: list[tuple[Mask, Mask, Shares]] = field(default_factory=list)
    quantised: list[tuple[Mask, Shares]] = field(default_factory=list)
    dequantised: list[tuple[Mask, Shares]] = field(default_factory=list)
    weightless: list[tuple[Mask, Shares]] = field(default_factory=list)
    others: Shares


class ExecutedGraph:
    """Follows the tensors of a model through its operations, for all candidates at once.

    The same rules place grids that place them in the compressed model, and
    the same decide what a runtime fuses that decide how files are written.

    Args:
        flow: The operations of the original.
        target: The runtime.
    """

    def __init__(self, flow: OperationTrace, target: Target) -> None:
        self.flow, self.target = flow, target
        self.first: list[int] = []  # number of the first output of each operation
        self.root: dict[int, int] = {}
        self.size: dict[int, int] = {}
        self.readers: dict[int, list[int]] = {}
        number = 0
        for position, operation in enumerate(flow.operations):
            self.first.append(number)
            for read in operation.inputs:
                self.readers.setdefault(read, []).append(position)
            for index in range(operation.outputs):
                views = operation.kind in VIEW_FUNCTIONS and bool(operation.inputs)
                source = operation.inputs[0] if views else number
                self.root[number] = self.root.get(source, source)
                self.size[number] = operation.sizes[index] if operation.sizes else 0
                number += 1
        self.chains = [
            self._chain(start, FUSED_FUNCTIONS) if operation.outputs else ()
            for start, operation in zip(self.first, flow.operations, strict=True)
        ]
        self.rounded = [
            self._chain(start, ROUNDED_FUNCTIONS)[-1] if operation.kind in CONVOLUTIONS else None
            for start, operation in zip(self.first, flow.operations, strict=True)
        ]
        self.weightless = weightless_kernels(flow)
        self.part = {place: kernel for kernel in self.weightless for place in kernel.positions}
        self.between = {
            self.first[place] for kernel in self.weightless for place in kernel.positions[:-1]
        }
        self.spans = {span.after: span for span in flow.spans}
        self.inside: list[list[str]] = [[] for _ in flow.operations]
        for span in flow.spans:
            for position in range(span.start, span.stop):
                self.inside[position].append(span.name)

    def run(
        self,
        quantised: Mapping[str, Mask],
        executable: Mapping[str, Mask],
        widths: Mapping[str, Shares],
        dropped: Mapping[str, Mask],
        count: int,
    ) -> Execution:
        """Follow the tensors of `count` candidates.

        Args:
            quantised: For each layer, which candidates quantise its weights and input.
            executable: For each layer, whether the runtime has integers for that.
            widths: For each layer, the share of its output channels that is left.
            dropped: For each block, which candidates drop it.
            count: n.
        """
        return _Pass(self, quantised, executable, widths, dropped, count).execution()

    def _chain(self, number: int, fused: Collection[str]) -> tuple[int, ...]:
        """List the tensors from an output on that are computed together with it."""
        chain = [number]
        while len(self.readers.get(number, ())) == 1:
            position = self.readers[number][0]
            if self.flow.operations[position].kind not in fused:
                break
            number = self.first[position]
            chain.append(number)
        return tuple(chain)


class _Pass:
    """One run over the operations."""

    def __init__(
        self,
        graph: ExecutedGraph,
        quantised: Mapping[str, Mask],
        executable: Mapping[str, Mask],
        widths: Mapping[str, Shares],
        dropped: Mapping[str, Mask],
        count: int,
    ) -> None:
        self.graph, self.quantised, self.widths = graph, quantised, widths
        self.executable = executable
        self.never, self.one = np.zeros(count, bool), np.ones(count)
        self.dropped = dropped
        self.state: dict[int, NDArray[np.int8]] = {}
        self.share: dict[int, Shares] = {}
        self.sites: dict[int, Mask] = {}
        self.fused: dict[int, Mask] = {}
        self.alive = [self._alive(names) for names in graph.inside]
        self.joins: list[Mask] = []
        self.computed: dict[int, Mask] = {}
        for position, operation in enumerate(graph.flow.operations):
            self._visit(position, operation)
        for position, operation in enumerate(graph.flow.operations):
            self._round_output(position, operation)

    def _alive(self, names: Sequence[str]) -> Mask:
        gone = self.never
        for name in names:
            gone = gone | self.dropped.get(name, self.never)
        return ~gone

    def _visit(self, position: int, operation: TracedOperation) -> None:
        """Tell what an operation computes in, and mark the tensors that it wants quantised."""
        alive = self.alive[position]
        state, wants = self._state(operation)
        self.joins.append(wants & alive)
        for number in operation.inputs:
            if wants.any():
                self._mark(number, wants & alive)
        share = self.one
        if operation.kind in LAYER_FUNCTIONS and operation.owner:
            share = self.widths.get(operation.owner, self.one)
        elif operation.inputs:
            share = self._share(operation)
        first = self.graph.first[position]
        for number in range(first, first + operation.outputs):
            self.state[number], self.share[number] = state, share
            span = self.graph.spans.get(number)
            gone = None if span is None else self.dropped.get(span.name)
            if span is not None and gone is not None and gone.any():
                self.state[number] = np.where(gone, self._state_of(span.before), state)
                self.share[number] = np.where(gone, self.share.get(span.before, self.one), share)

    def _share(self, operation: TracedOperation) -> Shares:
        """Return what is left of an output: as of the first input, or of all that are joined."""
        if operation.kind not in JOIN_FUNCTIONS:
            return self.share.get(operation.inputs[0], self.one)
        sizes = [self.graph.size.get(number, 1) for number in operation.inputs]
        parts = [
            size * self.share.get(number, self.one)
            for size, number in zip(sizes, operation.inputs, strict=True)
        ]
        whole: Shares = np.sum(parts, axis=0) / max(1, sum(sizes))
        return whole

    def _state_of(self, number: int) -> NDArray[np.int8]:
        return self.state.get(number, np.full(len(self.never), UNTOUCHED, np.int8))

    def _state(self, operation: TracedOperation) -> tuple[NDArray[np.int8], Mask]:
        """Return what an operation computes in, and who wants its inputs quantised."""
        if operation.kind in LAYER_FUNCTIONS:
            wants = self.quantised.get(operation.owner, self.never)
            return wants.astype(np.int8), wants if operation.inputs else self.never
        states = [self._state_of(number) for number in operation.inputs]
        if not states:
            return np.full(len(self.never), UNTOUCHED, np.int8), self.never
        joined = operation.kind in JOIN_FUNCTIONS or operation.residual
        decides = joined or operation.kind in PRODUCT_FUNCTIONS | POOL_FUNCTIONS
        if len(states) == 1 and not decides:
            return states[0], self.never  # most operations: what comes goes
        any_integer = np.any([s == INTEGERS for s in states], axis=0)
        any_float = np.any([s == FLOATS for s in states], axis=0)
        wants, after = self.never, np.full(len(self.never), INTEGERS, np.int8)
        if operation.kind in PRODUCT_FUNCTIONS:
            wants = np.all([s == INTEGERS for s in states], axis=0) & (len(states) > 1)
            after[~wants] = FLOATS
        elif joined or operation.kind in POOL_FUNCTIONS:
            wants = any_integer & ~any_float
            after[~wants & joined] = FLOATS
        untouched = np.where(any_float, FLOATS, UNTOUCHED)
        return np.where(any_integer, after, untouched).astype(np.int8), wants

    def _mark(self, number: int, mask: Mask) -> None:
        """Quantise a tensor; where its block is dropped, the one that the block takes."""
        root = self.graph.root.get(number, number)
        span = self.graph.spans.get(root)
        gone = None if span is None else self.dropped.get(span.name)
        if span is not None and gone is not None and (mask & gone).any():
            self._mark(span.before, mask & gone)
            mask = mask & ~gone
        known = self.sites.get(root)
        self.sites[root] = mask if known is None else known | mask

    def _round_output(self, position: int, operation: TracedOperation) -> None:
        """Quantise what a convolution gives to operations that ask for no grids."""
        number = self.graph.rounded[position]
        wants = self.quantised.get(operation.owner, self.never) & self.alive[position]
        if number is None or not wants.any():
            return
        read, by_others = self._readers(number)
        root = self.graph.root.get(number, number)
        known = self.sites.get(root, self.never)
        self.sites[root] = known | (wants & read & by_others)

    def _readers(self, number: int) -> tuple[Mask, Mask]:
        """Tell who reads a tensor or a view of it at all, and who only by such operations."""
        read, by_others = self.never, ~self.never
        for position in self.graph.readers.get(number, ()):
            operation, alive = self.graph.flow.operations[position], self.alive[position]
            if operation.kind in VIEW_FUNCTIONS:
                some, others = self._readers(self.graph.first[position])
                read, by_others = read | (alive & some), by_others & (~alive | others)
            else:
                planned = operation.residual or operation.kind in PLANNED_FUNCTIONS
                read, by_others = read | alive, by_others & ~(alive & planned)
        for span in self.graph.flow.spans:
            gone = self.dropped.get(span.name, self.never)
            if span.before == number and gone.any():
                some, others = self._readers(span.after)
                read, by_others = read | (gone & some), by_others & (~gone | others)
        return read, by_others

    def _look(self, number: int, table: Mapping[int, Mask]) -> Mask:
        """Read a mask of a tensor; where its block is dropped, of the one that it takes."""
        root = self.graph.root.get(number, number)
        span = self.graph.spans.get(root)
        own = table.get(root, self.never)
        gone = None if span is None else self.dropped.get(span.name)
        if span is None or gone is None or not gone.any():
            return own
        return np.where(gone, self._look(span.before, table), own)

    def execution(self) -> Execution:
        """Find what runs in integers once all tensors have their grids, and what is converted."""
        found = Execution(others=np.zeros(len(self.never)))
        for position, operation in enumerate(self.graph.flow.operations):
            first = self.graph.first[position]
            if operation.kind in FUSED_FUNCTIONS and operation.inputs:
                known = self.fused.get(operation.inputs[0], self.never)
                self.fused |= {first + number: known for number in range(operation.outputs)}
            elif operation.kind in VIEW_FUNCTIONS and position in self.graph.part:
                self.computed[position] = self._look(operation.inputs[0], self.sites)
            elif operation.kind in VIEW_FUNCTIONS:
                found.others += self.alive[position]
            else:
                self._compute(position, operation, found)
        for root, site in self.sites.items():
            apart = site & ~self.fused.get(root, self.never)
            if apart.any() and root not in self.graph.between:
                found.quantised.append((apart, self._elements(root)))
        for kernel in self.graph.weightless:
            ends = {kernel.positions[0], kernel.positions[-1]}
            share = np.mean([self.computed.get(end, self.never) for end in ends], axis=0)
            found.weightless.append((self.alive[kernel.positions[0]], share))
        return found

    def _compute(self, position: int, operation: TracedOperation, found: Execution) -> None:
        """Note in what an operation computes, and which inputs are dequantised for it."""
        alive, integer = self.alive[position], self.joins[position]
        layer = operation.owner if operation.kind in LAYER_FUNCTIONS else ""
        if layer:
            integer = integer & self.executable.get(layer, self.never)
        runtime, convolution = self.graph.target.runtime, operation.kind.startswith("conv")
        product = operation.kind in PRODUCT_FUNCTIONS and position in self.graph.part
        if (not layer and not product) or (convolution and runtime != OPENVINO):
            integer = integer & self._written(position)
        self.fused |= dict.fromkeys(self.graph.chains[position], integer)
        # OpenVINO computes an addition, and what is read and written for it, at once.
        apart = () if runtime == OPENVINO and operation.residual else operation.inputs
        for number in apart:
            wrong = self._look(number, self.sites) & alive & ~integer
            if wrong.any():
                found.dequantised.append((wrong, self._elements(number)))
        if layer:
            found.present[layer], found.integer[layer] = alive, integer
        elif operation.residual:
            elements = self._elements(self.graph.first[position])
            found.additions.append((alive & integer, alive & ~integer, elements))
        elif position in self.graph.part:
            self.computed[position] = integer
        else:
            found.others += alive

    def _written(self, position: int) -> Mask:
        """Tell who writes the output of an operation in integers at once."""
        masks = [self.sites.get(number) for number in self.graph.chains[position]]
        known = [self.never, *(mask for mask in masks if mask is not None)]
        written: Mask = np.any(known, axis=0)
        return written

    def _elements(self, number: int) -> Shares:
        return self.graph.size.get(number, 0) * self.share.get(number, self.one)


def flow_of(graph: ModelGraph) -> OperationTrace | None:
    """Return the operations of a graph, if what they return is known too."""
    if graph.flow is None or not all(op.sizes for op in graph.flow.operations if op.outputs):
        return None
    return graph.flow
