"""How many weights of a layer sparsity keeps, and how many bytes they take on disk."""

import math
from collections.abc import Sequence
from typing import Literal

UNSTRUCTURED, TWO_OF_FOUR = "unstructured", "2:4"

PATTERNS = (UNSTRUCTURED, TWO_OF_FOUR)
"""Which weights may be zero: any, or two in every four neighbouring inputs."""

Layout = Literal["dense", "bitmask", "rows"]


def kept_weights(shape: Sequence[int], sparsity: float, pattern: str) -> int:
    """Count the weights that a layer keeps; one always stays.

    Under "2:4" (Mishra et al. 2021), two weights of every four along the
    second axis are zero; up to three inputs at its end stay whole.

    Args:
        shape: Shape of the weight: outputs, inputs, any further axes.
        sparsity: Fraction set to zero, [0, 1).
        pattern: One of `PATTERNS`.

    Example:
        >>> kept_weights((10, 16), 0.75, "unstructured")
        40
        >>> kept_weights((10, 6, 3, 3), 0.5, "2:4")
        360
    """
    total = math.prod(shape)
    if sparsity == 0.0:
        return total
    if pattern == TWO_OF_FOUR:
        return total // shape[1] * (shape[1] - 2 * (shape[1] // 4))
    return max(1, total - round(sparsity * total))


def stored_layout(rows: int, columns: int, kept: int, bits: int) -> tuple[Layout, int]:
    """Find the smallest of three ways to store a layer that has masked weights.

    "dense" stores every weight; "bitmask" one bit per weight and the kept
    ones; "rows" the number of kept weights per row, their columns, and them
    (compressed sparse rows).

    Args:
        rows: Output channels.
        columns: Weights per output channel.
        kept: Weights that are not masked.
        bits: Bits per stored weight.

    Returns:
        The layout and its size in bytes; each array is rounded up to whole bytes.

    Example:
        >>> stored_layout(64, 576, 18432, 8)
        ('bitmask', 23040)
        >>> stored_layout(64, 576, 1843, 8)
        ('rows', 4227)
    """
    weights = rows * columns
    sizes: dict[Layout, int] = {
        "dense": _bytes(weights * bits),
        "bitmask": _bytes(weights) + _bytes(kept * bits),
        "rows": _bytes(rows * count_bits(columns))
        + _bytes(kept * index_bits(columns))
        + _bytes(kept * bits),
    }
    layout = min(sizes, key=lambda name: sizes[name])
    return layout, sizes[layout]


def count_bits(columns: int) -> int:
    """Return the bits of a number of weights in a row, 0 to `columns`."""
    return columns.bit_length()


def index_bits(columns: int) -> int:
    """Return the bits of a column's number, 0 to `columns - 1`."""
    return max(1, (columns - 1).bit_length())


def _bytes(bits: int) -> int:
    return -(-bits // 8)
