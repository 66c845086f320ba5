import numpy as np
import pytest

from autocompress.controller.evolution import best_first, evolve
from autocompress.core.pareto import non_dominated_mask, non_dominated_rank


def test_rows_come_by_violation_then_rank_then_the_ends_of_a_front() -> None:
    rng = np.random.default_rng(0)
    losses = rng.random((40, 2))
    violations = np.where(rng.random(40) < 0.3, rng.random(40), 0.0)
    order = best_first(losses, violations)
    assert sorted(order) == list(range(40))
    feasible = violations <= 0.0
    count = int(feasible.sum())
    assert feasible[order[:count]].all()
    assert (np.diff(violations[order[count:]]) >= 0.0).all()
    ranks = non_dominated_rank(losses[order[:count]])
    assert (np.diff(ranks) >= 0).all()
    ends = {int(np.argmin(np.where(feasible, column, np.inf))) for column in losses.T}
    assert ends <= set(order[: int((ranks == 0).sum())].tolist())


@pytest.mark.parametrize("limit", [np.inf, 6.0])
def test_the_whole_front_of_a_small_problem_is_found(limit: float) -> None:
    """All 4 ** 4 rows are known, so that the true front is."""
    weights = np.array([1.0, 2.0, 3.0, 4.0])

    def score(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses = np.stack([(weights * rows).sum(axis=1), ((3 - rows) ** 2).sum(axis=1)], axis=1)
        return losses, np.maximum(rows.sum(axis=1) - limit, 0.0)

    def vary(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        child = np.where(rng.random(one.shape) < 0.5, one, other)
        fresh = rng.integers(0, 4, one.shape)
        return np.where(rng.random(one.shape) < 0.25, fresh, child)

    every = np.stack(np.meshgrid(*[np.arange(4.0)] * 4), axis=-1).reshape(-1, 4)
    losses, violations = score(every)
    allowed = losses[violations <= 0.0]
    front = {tuple(row) for row in allowed[non_dominated_mask(allowed)]}
    rng = np.random.default_rng(1)
    start = rng.integers(0, 4, (20, 4)).astype(np.float64)
    found = evolve(score, vary, start, rng, population=100, generations=40)
    assert len(np.unique(found, axis=0)) == len(found)
    assert front <= {tuple(row) for row in score(found)[0]}
    assert (score(found)[1][: len(front)] == 0.0).all()
