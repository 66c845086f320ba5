"""NSGA-II on a table of rows, vectorised, for searches inside one proposal."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autocompress.core.pareto import non_dominated_rank

FloatArray = NDArray[np.float64]

Score = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Returns losses, `n x m`, and violations, `n` and 0 where feasible, of `n x d` rows."""

Vary = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]
"""Makes `n` children from `n` pairs of parents."""


def evolve(
    score: Score,
    vary: Vary,
    start: FloatArray,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
) -> FloatArray:
    """Search for rows that trade off losses, feasible ones before all others.

    Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm":
    ranks by constrained domination, crowding within a rank, tournaments of two.

    Args:
        score: What is minimised.
        vary: Crossover and mutation.
        start: Rows to begin with, at least one.
        rng: Source of randomness.
        population: Rows that survive a generation.
        generations: How many times children are made.

    Returns:
        The last population without repetition, best first.
    """
    rows = np.unique(start, axis=0)
    losses, violations = score(rows)
    kept = best_first(losses, violations)[:population]
    rows, losses, violations = rows[kept], losses[kept], violations[kept]
    for _ in range(generations):
        parents = rng.integers(0, len(rows), (2, 2, population)).min(axis=0)
        children = vary(rows[parents[0]], rows[parents[1]], rng)
        child_losses, child_violations = score(children)
        pool = np.concatenate([rows, children])
        losses = np.concatenate([losses, child_losses])
        violations = np.concatenate([violations, child_violations])
        _, first = np.unique(pool, axis=0, return_index=True)
        first.sort()
        order = first[best_first(losses[first], violations[first])[:population]]
        rows, losses, violations = pool[order], losses[order], violations[order]
    return rows


def best_first(losses: FloatArray, violations: FloatArray) -> NDArray[np.int64]:
    """Order rows by violation, non-dominated rank and crowding distance.

    Args:
        losses: `n x m`, all minimised.
        violations: `n` values, 0 where feasible.

    Returns:
        `n` row numbers, the best row's first.

    Example:
        >>> losses = np.array([[1.0, 1.0], [0.0, 3.0], [0.0, 0.0], [2.0, 2.0]])
        >>> best_first(losses, np.array([0.0, 0.0, 1.0, 0.0])).tolist()
        [0, 1, 3, 2]
    """
    feasible = violations <= 0.0
    ranks = np.full(len(losses), len(losses), dtype=np.int64)
    ranks[feasible] = non_dominated_rank(losses[feasible])
    return np.lexsort((-_crowding(losses, ranks), ranks, violations))


def _crowding(losses: FloatArray, ranks: NDArray[np.int64]) -> FloatArray:
    """Sum, over objectives, the distance between the neighbours within a rank."""
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.lexsort((column, ranks))
        rank, value = ranks[order], column[order]
        inner = np.zeros(len(order), dtype=bool)
        inner[1:-1] = (rank[:-2] == rank[1:-1]) & (rank[1:-1] == rank[2:])
        gaps = np.full(len(order), np.inf)
        gaps[1:-1] = value[2:] - value[:-2]
        distances[order] += np.where(inner, gaps / (np.ptp(column) or 1.0), np.inf)
    return distances
