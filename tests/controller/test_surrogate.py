import numpy as np
from optuna.distributions import IntDistribution

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History, Landscape
from autocompress.controller.surrogate import Surrogate

GENES = Genes.of({f"x{n}": IntDistribution(0, 3) for n in range(4)})


def test_costs_are_exact_and_the_rest_is_predicted() -> None:
    rng = np.random.default_rng(0)
    rows = GENES.draw(40, rng)
    damage, cost = 0.02 * rows.sum(axis=1), 12.0 - rows.sum(axis=1)
    limit = rows[:, 0] - 1.5
    history = History(
        places=np.arange(40),
        rows=rows,
        active=np.ones(rows.shape, dtype=bool),
        losses=np.stack([damage, cost], axis=1),
        constraints={"limit": np.where(np.arange(40) % 2, limit, np.nan)},
    )

    def exact(table: np.ndarray) -> np.ndarray:
        return np.asarray(12.0 - table.sum(axis=1))

    exact.batched = True  # type: ignore[attr-defined]
    landscape = Landscape(
        GENES,
        history,
        costs={1: exact},
        constraints={},
        features=None,
        activity=None,
        signs=np.ones(2),
    )
    surrogate = Surrogate(landscape, history, seed=0)
    fresh = GENES.draw(50, rng)
    view = landscape.view(fresh)
    losses, violations = surrogate.score(view, 0.0)
    np.testing.assert_allclose(losses[:, 1], 12.0 - fresh.sum(axis=1))
    np.testing.assert_allclose(losses[:, 0], 0.02 * fresh.sum(axis=1), atol=0.02)
    assert ((violations > 0.3) == (fresh[:, 0] >= 2.0)).mean() > 0.9
    assert (surrogate.score(view, 1.0)[0][:, 0] <= losses[:, 0] + 1e-12).all()
    assert list(surrogate.rank_correlations) == [0]
    assert surrogate.rank_correlations[0] > 0.8
    assert abs(sum(surrogate.weights[0]) - 1.0) < 1e-9


def test_a_limit_of_a_learned_objective_follows_its_prediction() -> None:
    rng = np.random.default_rng(0)
    rows = GENES.draw(40, rng)
    losses = 0.02 * rows.sum(axis=1, keepdims=True) + 0.01 * rng.random((40, 1))
    history = History(
        places=np.arange(40),
        rows=rows,
        active=np.ones(rows.shape, dtype=bool),
        losses=losses,
        constraints={"accuracy": losses[:, 0] - 0.1},
    )
    landscape = Landscape(
        GENES, history, costs={}, constraints={}, features=None, activity=None, signs=np.ones(1)
    )
    view = landscape.view(GENES.draw(50, rng))
    means, violations = Surrogate(landscape, history, seed=0).score(view, 0.0)
    np.testing.assert_allclose(violations, np.maximum(means[:, 0] - 0.1, 0.0), atol=1e-12)
