"""Pareto maths on tables of losses: fronts, ranks and hypervolume."""

import numpy as np
from numpy.typing import NDArray

from autocompress.errors import InvalidInputError, explain

FloatArray = NDArray[np.float64]


def non_dominated_mask(losses: FloatArray) -> NDArray[np.bool_]:
    """Mark the Pareto-optimal rows of a table of losses.

    A row is optimal when no other row is at least as small in every
    objective and strictly smaller in one. Identical rows are all kept.

    Args:
        losses: `n x m` array, all m objectives minimised; m >= 1.

    Returns:
        `n` booleans, True for rows on the Pareto front.

    Raises:
        InvalidInputError: If `losses` is not two-dimensional or has NaN.

    Example:
        >>> losses = np.array([[0.08, 4.0], [0.10, 2.5], [0.11, 3.0]])
        >>> non_dominated_mask(losses)
        array([ True,  True, False])
    """
    table = _checked(losses)
    return np.asarray(_dominance(table).sum(axis=0) == 0)


def non_dominated_rank(losses: FloatArray) -> NDArray[np.int64]:
    """Peel fronts off a table: 0 for the front, 1 for the next one, and so on.

    Args:
        losses: `n x m` array, all minimised.

    Returns:
        `n` ranks.

    Example:
        >>> non_dominated_rank(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 3.0]]))
        array([0, 1, 0])
    """
    table = _checked(losses)
    dominates = _dominance(table)
    above = dominates.sum(axis=0)
    ranks = np.full(len(table), -1, dtype=np.int64)
    rank = 0
    while (front := np.flatnonzero((ranks < 0) & (above == 0))).size:
        ranks[front] = rank
        above -= dominates[front].sum(axis=0)
        rank += 1
    return ranks


def hypervolume(losses: FloatArray, reference: FloatArray) -> float:
    """Measure the region that a set of losses dominates below a reference point.

    Exact, by slicing along the last objective (hypervolume by slicing
    objectives, While et al. 2006); points beyond the reference do not count.

    Args:
        losses: `n x m` array, all minimised.
        reference: `m` values, the corner of the region.

    Returns:
        The dominated volume, in the product of the objectives' units.

    Example:
        >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0]))
        3.0
    """
    table = _checked(losses)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (table.shape[1],):
        raise InvalidInputError(
            explain(
                "'reference'",
                expected=f"shape ({table.shape[1]},)",
                got=corner.shape,
                remedy="give one value per objective",
            )
        )
    inside = table[(table < corner).all(axis=1)]
    return _slice_volume(inside, corner) if len(inside) else 0.0


def greedy_hypervolume(
    losses: FloatArray, reference: FloatArray, count: int, chosen: tuple[int, ...] = ()
) -> list[int]:
    """Choose rows one by one, each adding the most hypervolume.

    Args:
        losses: `n x m` array, all minimised.
        reference: `m` values.
        count: How many rows to add at most, >= 0.
        chosen: Rows that count as chosen already.

    Returns:
        Row numbers in the order of their choice, without `chosen`; fewer
        than `count` when no row adds volume.
    """
    table = _checked(losses)
    picked = list(chosen)
    added: list[int] = []
    volume = hypervolume(table[picked], reference) if picked else 0.0
    while len(added) < count:
        volumes = [
            (hypervolume(table[[*picked, row]], reference), -row)
            for row in range(len(table))
            if row not in picked
        ]
        best, negative = max(volumes, default=(volume, 0))
        if best <= volume:
            break
        picked.append(-negative)
        added.append(-negative)
        volume = best
    return added


def _dominance(table: FloatArray) -> NDArray[np.bool_]:
    """Tell for each pair of rows whether the first dominates the second."""
    no_worse = (table[:, None, :] <= table[None, :, :]).all(axis=2)
    return np.asarray(no_worse & ~no_worse.T)


def _slice_volume(table: FloatArray, corner: FloatArray) -> float:
    front = table[non_dominated_mask(table)]
    if front.shape[1] == 1:
        return float(corner[0] - front.min())
    order = front[np.argsort(front[:, -1], kind="stable")]
    depths = np.append(order[:, -1], corner[-1])
    volume = 0.0
    for index in range(len(order)):
        depth = depths[index + 1] - depths[index]
        if depth > 0:
            volume += depth * _slice_volume(order[: index + 1, :-1], corner[:-1])
    return float(volume)


def _checked(losses: FloatArray) -> FloatArray:
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 1:
        raise InvalidInputError(
            explain("'losses'", expected="an n x m array", got=table.shape, remedy="reshape it")
        )
    if np.isnan(table).any():
        raise InvalidInputError(
            explain("'losses'", expected="no NaN", got="NaN", remedy="drop failed candidates first")
        )
    return table
