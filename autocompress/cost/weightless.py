"""Kernels without weights beside additions: pools, and the products of an attention."""

import math
from dataclasses import dataclass

from autocompress.core.target import FLOAT
from autocompress.cost.kernel_key import KernelKey
from autocompress.graph.operations import LAYER_FUNCTIONS, OperationTrace
from autocompress.transform.discovery import PRODUCT_FUNCTIONS

POOLS = {
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), "maxpool"),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), "avgpool"),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), "maxpool"),
    **dict.fromkeys(
        ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), "avgpool"
    ),
}
"""The kernel that stands for each function."""

SOFTMAX = "softmax"
BETWEEN_PRODUCTS = frozenset(
    {
        *(SOFTMAX, "mul", "__mul__", "__rmul__", "div", "__truediv__", "dropout", "to", "type_as"),
        *("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "masked_fill"),
        *("float", "where", "clamp", "max"),
    }
)
"""What may be done to the scores of an attention before they weigh its values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weightless:
    """A pool, or an attention from its scores to its outputs.

    Attributes:
        kind: "maxpool", "avgpool" or "attention".
        positions: Its operations, by their numbers in the trace.
        carrier: The layer whose outputs it takes, by way of others; "" if there is none.
        channels: Channels, or heads, of the original.
        kernel: Window of a pool per spatial axis; features of a head.
        stride: Stride of a pool per spatial axis; () for an attention.
        size: Output size per spatial axis; queries and keys.
        blocks: The blocks that it is inside.
    """

    kind: str
    positions: tuple[int, ...]
    carrier: str
    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]
    blocks: frozenset[str]

    def key(self, share: float = 1.0, bits: int = FLOAT) -> KernelKey:
        """Return its kernel where a share of the channels of its carrier is left."""
        channels = max(1, round(share * self.channels))
        return KernelKey(
            kind=self.kind,
            in_channels=channels,
            out_channels=channels,
            kernel=self.kernel,
            stride=self.stride,
            size=self.size,
            bits=bits,
        )


def weightless_kernels(flow: OperationTrace) -> list[Weightless]:
    """Find pools, and products with a softmax between them, in the order of execution.

    Args:
        flow: The operations of a model.
    """
    return _Finder(flow).found


class _Finder:
    """Follows tensors to what makes and what reads them."""

    def __init__(self, flow: OperationTrace) -> None:
        self.flow = flow
        self.maker: dict[int, int] = {}
        self.shape: dict[int, tuple[int, ...]] = {}
        self.readers: dict[int, list[int]] = {}
        number = 0
        for position, operation in enumerate(flow.operations):
            for read in operation.inputs:
                self.readers.setdefault(read, []).append(position)
            for shape in operation.shapes:
                self.maker[number], self.shape[number] = position, shape
                number += 1
        self.first = {made: number for number, made in reversed(self.maker.items())}
        self.found: list[Weightless] = []
        for position, operation in enumerate(flow.operations):
            kernel = None
            if operation.kind in POOLS:
                kernel = self._pool(position)
            elif operation.kind in PRODUCT_FUNCTIONS:
                kernel = self._attention(position)
            if kernel is not None:
                self.found.append(kernel)

    def _pool(self, position: int) -> Weightless | None:
        operation = self.flow.operations[position]
        taken = self.shape.get(operation.inputs[0]) if operation.inputs else None
        made = self.shape[self.first[position]]
        if taken is None or len(taken) != len(made) or len(made) < 3:
            return None
        stride = tuple(max(1, n // m) for n, m in zip(taken[2:], made[2:], strict=True))
        window = operation.window or stride
        return Weightless(
            kind=POOLS[operation.kind],
            positions=(position,),
            carrier=self._carrier(operation.inputs[0]),
            channels=made[1],
            kernel=window if len(window) == len(stride) else window * len(stride),
            stride=stride,
            size=made[2:],
            blocks=self._blocks(position),
        )

    def _attention(self, position: int) -> Weightless | None:
        """Read an attention from its first product on; None if it is none."""
        operation = self.flow.operations[position]
        query = self.shape.get(operation.inputs[0]) if operation.inputs else None
        scores = self.shape[self.first[position]]
        inside = self._up_to_product(position)
        if query is None or inside is None or len(scores) < 3 or len(query) != len(scores):
            return None
        return Weightless(
            kind="attention",
            positions=inside,
            carrier=self._carrier(operation.inputs[0]),
            channels=max(1, math.prod(scores[:-2]) // self.flow.examples),
            kernel=(query[-1],),
            stride=(),
            size=scores[-2:],
            blocks=self._blocks(position),
        )

    def _up_to_product(self, position: int) -> tuple[int, ...] | None:
        """Follow scores through a softmax to the product with the values."""
        inside = [position]
        while True:
            readers = self.readers.get(self.first[inside[-1]], [])
            kinds = [self.flow.operations[reader].kind for reader in readers]
            products = [
                r for r, kind in zip(readers, kinds, strict=True) if kind in PRODUCT_FUNCTIONS
            ]
            if products:
                normal = any(self.flow.operations[place].kind == SOFTMAX for place in inside)
                return (*inside, products[0]) if normal else None
            following = [
                r for r, kind in zip(readers, kinds, strict=True) if kind in BETWEEN_PRODUCTS
            ]
            if not following:
                return None
            inside.append(following[0])

    def _carrier(self, number: int) -> str:
        """Name the layer whose outputs a tensor consists of, in part or in whole."""
        while number in self.maker:
            operation = self.flow.operations[self.maker[number]]
            if operation.kind in LAYER_FUNCTIONS and operation.owner:
                return operation.owner
            if not operation.inputs:
                break
            number = operation.inputs[0]
        return ""

    def _blocks(self, position: int) -> frozenset[str]:
        spans = self.flow.spans
        return frozenset(span.name for span in spans if span.start <= position < span.stop)
