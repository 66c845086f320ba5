"""Codebooks of weights: optimal one-dimensional clusters of 8-bit integers."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LIMIT = 127


def optimal_codebook(
    integers: Tensor, importance: Tensor, entries: int, *, zero: bool = False
) -> Tensor:
    """Choose integers that stand for all others at the least squared error.

    One-dimensional k-means, solved exactly by dynamic programming (Wang and
    Song 2011) over the histogram of the integers.

    Args:
        integers: Whole numbers in [-127, 127], any shape.
        importance: Weight of each one's squared error, of the same shape.
        entries: How many may be chosen, 2 to 256.
        zero: Whether 0 must be among them.

    Returns:
        At most that many different integers, ascending, int8; fewer where
        fewer occur.

    Example:
        >>> optimal_codebook(torch.tensor([-9.0, -8, 1, 2, 3]), torch.ones(5), 2)
        tensor([-8,  2], dtype=torch.int8)
    """
    bins = (integers.detach().flatten().long() + LIMIT).cpu()
    weights = importance.detach().flatten().double().cpu()
    mass = torch.bincount(bins, weights, minlength=2 * LIMIT + 1).numpy()
    points = np.flatnonzero(mass)
    chosen = _clusters(points - LIMIT, mass[points], min(entries, len(points)))
    if zero and 0 not in chosen:
        chosen[np.abs(chosen).argmin()] = 0
    return torch.from_numpy(np.unique(chosen)).to(integers.device, torch.int8)


def nearest_entries(scaled: Tensor, codebook: Tensor) -> Tensor:
    """Round to the nearest entries of a codebook; of two, to the upper one.

    Args:
        scaled: Any shape.
        codebook: Ascending integers.

    Returns:
        Entries, as floats of the same shape.
    """
    entries = codebook.to(scaled.dtype)
    borders = (entries[1:] + entries[:-1]) / 2
    return entries[torch.bucketize(scaled.contiguous(), borders, right=True)]


def _clusters(
    values: NDArray[np.int64], mass: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Cut sorted values into runs of least squared error; return their rounded means."""
    moments = [np.concatenate([[0.0], np.cumsum(mass * values**power)]) for power in (0, 1, 2)]
    total, first, second = (m[None, :] - m[:, None] for m in moments)
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = np.where(total > 0, second - first**2 / total, np.inf)  # of the run [i, j)
    best = cost[0]
    starts = []
    for _ in range(count - 1):
        through = best[:, None] + cost
        starts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    borders = [len(values)]
    for start in reversed(starts):
        borders.append(int(start[borders[-1]]))
    borders.append(0)
    ends, begins = np.array(borders[:-1]), np.array(borders[1:])
    means: NDArray[np.int64] = np.rint(first[begins, ends] / total[begins, ends]).astype(np.int64)
    return means
