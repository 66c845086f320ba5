"""Allocations keep their budgets, and are the best there are."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from autocompress.controller.allocated import allocated, even_budgets
from autocompress.controller.computed import Sensitivities
from autocompress.controller.designs import ladder_start
from autocompress.core.candidate import Candidate
from autocompress.cost.analytic import count_costs
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(2, 16), None, ["size_bytes", "macs"])
START = ladder_start(SPACE)


def _costs(candidates: Sequence[Candidate]) -> np.ndarray:
    found = [count_costs(SPACE.graph, candidate) for candidate in candidates]
    return np.array([[cost["size_bytes"], cost["macs"]] for cost in found])


def _sensitivities(kinds: Sequence[str], seed: int = 0) -> Sensitivities:
    """Damages that grow with the distance from the start."""
    rng, start = np.random.default_rng(seed), SPACE.to_params(START)
    return Sensitivities(
        {
            p.name: rng.uniform(0.1, 1.0) * np.abs(np.arange(p.high + 1) - start[p.name]) ** 1.5
            for p in SPACE.parameters
            if p.name.partition(":")[0] in kinds
        }
    )


def _damage(sensitivities: Sensitivities, candidate: Candidate) -> float:
    params = SPACE.to_params(candidate)
    return float(sum(table[int(params[n])] for n, table in sensitivities.tables.items()))


@pytest.mark.parametrize("kinds", [("prune", "precision"), ("prune", "drop", "precision")])
def test_budgets_are_kept_from_mild_to_strong(kinds: tuple[str, ...]) -> None:
    whole = _costs([START])[0]
    known = _sensitivities(kinds)
    for budgets in even_budgets(whole, 0.4 * whole, 9):
        found = allocated(SPACE, START, known, _costs, budgets)
        limited = np.isfinite(budgets[0])
        costs = _costs(found)[:, limited]
        assert found
        assert len(set(found)) == len(found)
        for cost in costs:  # each keeps one of the budgets
            assert (cost <= budgets[:, limited]).all(axis=1).any()
        assert (np.diff(costs.sum(axis=1)) < 0.0).all()
        assert all(config.weight_bits <= 8 for one in found for config in one.layers.values())


def test_where_costs_add_up_the_allocation_is_the_best_there_is() -> None:
    names = [p.name for p in SPACE.parameters if p.name.startswith("precision")][:3]
    tables = _sensitivities(("precision",)).tables
    known = Sensitivities({name: tables[name] for name in names})
    start = SPACE.to_params(START)
    every = [
        SPACE.from_params(start | dict(zip(names, levels, strict=True)))
        for levels in product(*(range(len(tables[name])) for name in names))
    ]
    sizes = _costs(every)[:, 0]
    limit = float(np.quantile(sizes, 0.3))
    found = allocated(SPACE, START, known, _costs, np.array([[limit, np.inf]]))
    within = [_damage(known, c) for c, size in zip(every, sizes, strict=True) if size <= limit]
    assert _damage(known, found[0]) == pytest.approx(min(within), rel=0.02)


def test_a_budget_out_of_reach_is_left_out() -> None:
    known = _sensitivities(("prune",))
    assert allocated(SPACE, START, known, _costs, np.array([[1.0, np.inf]])) == []


def test_several_costs_are_limited_together_and_alone() -> None:
    together, first, second = even_budgets(np.array([10.0, 2.0]), np.array([4.0, 1.0]), 6)
    np.testing.assert_allclose(together, [[8.0, 5 / 3], [6.0, 4 / 3]])
    assert np.isinf(first[:, 1]).all()
    assert np.isinf(second[:, 0]).all()
