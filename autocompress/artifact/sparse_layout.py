"""Which weights of a masked layer are kept, as packed bits: a bitmask or compressed rows."""

import numpy as np
from numpy.typing import NDArray

from autocompress.core.sparsity import Layout, count_bits, index_bits


def pack_numbers(numbers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Pack non-negative integers into a stream of bits, most significant first.

    Args:
        numbers: Integers in [0, 2**bits).
        bits: Bits per number, 1 to 32.

    Returns:
        Bytes; the last one is padded with zeros.

    Example:
        >>> pack_numbers(np.array([1, 2, 1023]), 10)
        array([  0,  64,  47, 252], dtype=uint8)
    """
    places = np.arange(bits - 1, -1, -1)
    flat = (np.asarray(numbers, dtype=np.int64).ravel()[:, None] >> places) & 1
    return np.packbits(flat.astype(np.uint8).ravel())


def unpack_numbers(stream: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """Undo `pack_numbers`.

    Args:
        stream: The packed bytes.
        bits: Bits per number, 1 to 32.
        count: How many numbers.

    Example:
        >>> unpack_numbers(np.array([0, 64, 47, 252], dtype=np.uint8), 10, 3)
        array([   1,    2, 1023])
    """
    flat = np.unpackbits(stream)[: count * bits].reshape(count, bits).astype(np.int64)
    numbers: NDArray[np.int64] = flat @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
    return numbers


def pack_mask(mask: NDArray[np.bool_], layout: Layout) -> dict[str, NDArray[np.uint8]]:
    """Pack the positions of kept weights.

    Args:
        mask: Rows by columns, True where a weight is kept.
        layout: "bitmask" or "rows".

    Returns:
        "mask", or "counts" (kept weights per row) and "columns", by name.
    """
    if layout == "bitmask":
        return {"mask": np.packbits(mask.ravel())}
    columns = mask.shape[1]
    return {
        "counts": pack_numbers(mask.sum(axis=1), count_bits(columns)),
        "columns": pack_numbers(np.nonzero(mask)[1], index_bits(columns)),
    }


def unpack_mask(packed: dict[str, NDArray[np.uint8]], rows: int, columns: int) -> NDArray[np.bool_]:
    """Undo `pack_mask`.

    Args:
        packed: What it returned.
        rows: Rows of the mask.
        columns: Columns of the mask.

    Raises:
        ValueError: If the arrays are too short or say something impossible.
        KeyError: If one of them is missing.
    """
    if "mask" in packed:
        bits = np.unpackbits(packed["mask"])[: rows * columns]
        return bits.reshape(rows, columns).astype(np.bool_)
    counts = unpack_numbers(packed["counts"], count_bits(columns), rows)
    total = int(counts.sum())
    places = unpack_numbers(packed["columns"], index_bits(columns), total)
    if total and places.max() >= columns:
        raise ValueError(f"a column beyond {columns}")
    mask = np.zeros((rows, columns), dtype=np.bool_)
    mask[np.repeat(np.arange(rows), counts), places] = True
    return mask
