"""How many weights of a layer sparsity keeps."""

import math
from collections.abc import Sequence

UNSTRUCTURED, TWO_OF_FOUR = "unstructured", "2:4"

PATTERNS = (UNSTRUCTURED, TWO_OF_FOUR)
"""Which weights may be zero: any, or two in every four neighbouring inputs."""


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
