"""How many weights of a layer sparsity keeps."""

import math
import re
from collections.abc import Sequence

UNSTRUCTURED = "unstructured"


def parse_pattern(pattern: str) -> tuple[int, int] | None:
    """Read an N:M pattern: N of every M neighbouring inputs stay (Mishra et al. 2021).

    Args:
        pattern: "unstructured", or "N:M" with 1 <= N < M, such as "1:4", "2:4" or "4:8".

    Returns:
        N and M; None for "unstructured".

    Raises:
        ValueError: If it is neither.

    Example:
        >>> parse_pattern("2:4")
        (2, 4)
    """
    if pattern == UNSTRUCTURED:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", pattern)
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError(f"'{UNSTRUCTURED}', or N:M with 1 <= N < M, such as '2:4'")
    return int(found[1]), int(found[2])


def pattern_sparsity(pattern: str) -> float:
    """Return the fraction of weights that an N:M pattern sets to zero.

    Example:
        >>> pattern_sparsity("1:4")
        0.75
    """
    kept, of = parse_pattern(pattern) or (1, 1)
    return 1.0 - kept / of


def kept_weights(shape: Sequence[int], sparsity: float, pattern: str) -> int:
    """Count the weights that a layer keeps; one always stays.

    Under "N:M", M - N weights of every M along the second axis are zero; up
    to M - 1 inputs at its end stay whole.

    Args:
        shape: Shape of the weight: outputs, inputs, any further axes.
        sparsity: Fraction set to zero, [0, 1).
        pattern: As `parse_pattern` takes it.

    Example:
        >>> kept_weights((10, 16), 0.75, "unstructured")
        40
        >>> kept_weights((10, 6, 3, 3), 0.5, "2:4")
        360
    """
    total = math.prod(shape)
    if sparsity == 0.0:
        return total
    parsed = parse_pattern(pattern)
    if parsed is not None:
        kept, of = parsed
        return total // shape[1] * (shape[1] - (of - kept) * (shape[1] // of))
    return max(1, total - round(sparsity * total))
