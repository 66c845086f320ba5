"""Which weights of a masked layer are kept, as symbols: a bitmask, or the gaps between them."""

import numpy as np
from numpy.typing import NDArray

from autocompress.artifact.container import Symbols

FARTHEST = 255
"""The symbol of so many weights that are not kept; after any other one, a kept weight comes."""


def pack_bitmask(mask: NDArray[np.bool_]) -> Symbols:
    """Write one bit per weight, eight to a symbol.

    Args:
        mask: True where a weight is kept, any shape.
    """
    return Symbols(np.packbits(mask.ravel()), 8)


def unpack_bitmask(packed: Symbols, count: int) -> NDArray[np.bool_]:
    """Undo `pack_bitmask`.

    Args:
        packed: What it returned.
        count: Number of weights.

    Raises:
        ValueError: If it is of another length.
    """
    if len(packed.values) != -(-count // 8):
        raise ValueError(f"a bitmask of {len(packed.values)} bytes for {count} weights")
    return np.unpackbits(packed.values)[:count].astype(np.bool_)


def pack_gaps(mask: NDArray[np.bool_]) -> Symbols:
    """Write how many weights are skipped before each kept one (Han et al. 2016).

    Args:
        mask: True where a weight is kept, any shape.

    Example:
        >>> pack_gaps(np.array([False, True, True, False, False, True, False])).values
        array([1, 0, 2], dtype=uint8)
    """
    gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
    far = gaps // FARTHEST
    ends = np.cumsum(far + 1) - 1
    symbols = np.full(len(gaps) + int(far.sum()), FARTHEST, dtype=np.uint8)
    symbols[ends] = gaps % FARTHEST
    return Symbols(symbols, 8)


def unpack_gaps(packed: Symbols, count: int) -> NDArray[np.bool_]:
    """Undo `pack_gaps`.

    Args:
        packed: What it returned.
        count: Number of weights.

    Raises:
        ValueError: If it names a weight that is not there.
    """
    kept = packed.values != FARTHEST
    places = np.cumsum(packed.values.astype(np.int64) + kept)[kept] - 1
    if len(places) and places[-1] >= count:
        raise ValueError(f"a weight beyond {count}")
    mask = np.zeros(count, dtype=np.bool_)
    mask[places] = True
    return mask
