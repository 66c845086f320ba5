"""How much hypervolume candidates would add to a front."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from autocompress.core.pareto import non_dominated_mask

FloatArray = NDArray[np.float64]

SAMPLES_LOG2 = 12
"""Three and more objectives: log2 of the quasi-random points that measure the volume."""


def improvements(losses: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the hypervolume that each candidate alone would add to a front.

    Exact for one and two objectives; for more, the share of quasi-random
    points, the same for all candidates.

    Args:
        losses: `n x m` candidates, all minimised.
        front: `k x m` known losses, k >= 0.
        reference: `m` values, the corner of the region.

    Returns:
        `n` values >= 0.

    Example:
        >>> front = np.array([[1.0, 2.0], [2.0, 1.0]])
        >>> improvements(np.array([[0.5, 2.5], [2.5, 2.5]]), front, np.array([3.0, 3.0])).tolist()
        [0.25, 0.0]
    """
    inside = front[(front < reference).all(axis=1)]
    if losses.shape[1] == 1:
        best = inside.min(initial=reference[0])
        return np.asarray(np.maximum(best - losses[:, 0], 0.0))
    if losses.shape[1] == 2:
        return _area(losses, inside, reference)
    corner = np.minimum(losses.min(axis=0), reference)
    points = qmc.Sobol(losses.shape[1], rng=0).random_base2(SAMPLES_LOG2)
    points = corner + points * (reference - corner)
    free = points[~_covered(points, inside[non_dominated_mask(inside)])]
    share = [(row <= free).all(axis=1).mean() if len(free) else 0.0 for row in losses]
    return np.asarray(share) * len(free) / len(points) * float(np.prod(reference - corner))


def _area(losses: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """Integrate, over the second loss, what the first one gains on the front's staircase."""
    order = front[np.lexsort((front[:, 0], front[:, 1]))]
    least = np.minimum.accumulate(order[:, 0])
    low = np.concatenate([[-np.inf], order[:, 1]])
    high = np.concatenate([order[:, 1], [reference[1]]])
    level = np.concatenate([[reference[0]], least])
    width = np.maximum(high - np.maximum(low, losses[:, [1]]), 0.0)
    return np.asarray((width * np.maximum(level - losses[:, [0]], 0.0)).sum(axis=1))


def _covered(points: FloatArray, front: FloatArray) -> NDArray[np.bool_]:
    covered = np.zeros(len(points), dtype=bool)
    for row in front:
        covered |= (row <= points).all(axis=1)
    return covered
