from typing import Any

import numpy as np
import pytest
from optuna.distributions import IntDistribution

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History, Landscape
from autocompress.controller.proposals import (
    LEAST_TRIALS,
    Model,
    drawn,
    mutated,
    repaired,
    separable_steps,
    unseen,
)

GENES = Genes.of({f"x{n}": IntDistribution(0, 3) for n in range(6)})
WEIGHTS = np.array([1.0, 2.0, 4.0, 0.5, 3.0, 1.5])


def cost(table: np.ndarray) -> np.ndarray:
    return np.asarray(18.0 - table.sum(axis=1))


cost.batched = True  # type: ignore[attr-defined]


def at_least_nine(table: np.ndarray) -> np.ndarray:
    return np.asarray(9.0 - table.sum(axis=1))


at_least_nine.batched = True  # type: ignore[attr-defined]


def history(rows: np.ndarray, losses: np.ndarray, **fields: Any) -> History:
    given = {"places": np.arange(len(rows)), "constraints": {}} | fields
    return History(rows=rows, active=np.ones(rows.shape, dtype=bool), losses=losses, **given)


def landscape(known: History, **functions: Any) -> Landscape:
    given: dict[str, Any] = {"costs": {1: cost}, "constraints": {}} | functions
    return Landscape(GENES, known, features=None, activity=None, signs=np.ones(2), **given)


def losses(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows**2 @ WEIGHTS / 100.0, cost(rows)], axis=1)


def some(count: int, seed: int = 0) -> History:
    rows = np.unique(GENES.draw(count, np.random.default_rng(seed)), axis=0)
    return history(rows, losses(rows))


def test_steps_find_the_front_of_a_separable_problem() -> None:
    known = some(30)

    def score(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return losses(rows), np.zeros(len(rows))

    base = np.full(6, 1.0)
    rows = separable_steps(landscape(known), score, base[None], np.random.default_rng(0))
    everything = np.stack(np.meshgrid(*[np.arange(4.0)] * 6), axis=-1).reshape(-1, 6)
    table = losses(everything)
    for row in losses(rows[::2]):  # those that take all steps
        better = (table <= row).all(axis=1) & (table < row).any(axis=1)
        assert not better.any()


def test_infeasible_rows_are_repaired_and_others_left_alone() -> None:
    known = some(30)
    exact = landscape(known, constraints={"limit": at_least_nine})
    rows = GENES.draw(50, np.random.default_rng(1))
    mended = repaired(exact, rows, known.rows, np.random.default_rng(2))
    assert (exact.violations(mended) == 0.0).all()
    fine = exact.violations(rows) == 0.0
    assert (mended[fine] == rows[fine]).all()
    assert 0 < fine.sum() < 50


@pytest.mark.parametrize("least", [9.0, 18.0])
def test_what_is_drawn_is_feasible_and_new(least: float) -> None:
    def limit(table: np.ndarray) -> np.ndarray:
        return np.asarray(least - table.sum(axis=1))

    limit.batched = True  # type: ignore[attr-defined]
    exact = landscape(some(3), constraints={"limit": limit})
    known = np.empty((0, 6))
    for seed in range(3):
        row = drawn(exact, known, np.random.default_rng(seed))
        assert exact.violations(row[None])[0] == 0.0
        if least < 18.0:  # else one row alone is feasible
            assert unseen(row[None], known)[0]
        known = np.concatenate([known, row[None]])


def test_mutations_are_near_the_front_and_new() -> None:
    known = some(40)
    row = mutated(landscape(known), known, known.rows, np.random.default_rng(0))
    assert unseen(row[None], known.rows)[0]


def test_a_model_proposes_what_adds_hypervolume() -> None:
    known = some(60)
    model = Model(landscape(known), known, known.first(10), np.array([1.0, 18.0]), seed=0)
    assert model.trusted
    none = np.empty((0, 6))
    row = model.best(known, none, known.rows, 0, np.random.default_rng(0))
    found = losses(row[None])[0]
    assert unseen(row[None], known.rows)[0]
    assert not (known.losses <= found).all(axis=1).any()
    other = model.best(
        known, row[None], np.concatenate([known.rows, [row]]), 1, np.random.default_rng(0)
    )
    assert (other != row).any()
    told = model.round(np.array([1.0, -1.0]))
    assert told.trials == len(known)
    assert told.reference == (1.0, -18.0)
    assert told.to_json()["trusted"]


def test_trials_of_earlier_studies_teach_but_are_not_in_the_way() -> None:
    """With the whole front known from earlier, its best is proposed once more."""
    rows = np.stack(np.meshgrid(*[np.arange(0.0, 4.0, 3.0)] * 6), axis=-1).reshape(-1, 6)
    known = history(rows, losses(rows), places=-1 - np.arange(len(rows)))
    model = Model(landscape(known), known, known.first(10), np.array([1.0, 18.0]), seed=0)
    none = np.empty((0, 6))
    row = model.best(known, none, none, 0, np.random.default_rng(0))
    volume = np.prod(np.array([1.0, 18.0]) - losses(row[None])[0])
    every = np.prod(np.maximum(np.array([1.0, 18.0]) - losses(rows), 0.0), axis=1)
    assert volume > 0.9 * every.max()


def test_noise_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    rows = GENES.draw(LEAST_TRIALS + 5, rng)
    known = history(rows, np.stack([rng.random(len(rows)), cost(rows)], axis=1))
    model = Model(landscape(known), known, known.first(10), None, seed=0)
    assert not model.trusted


def test_trials_take_turns_with_nearer_reference_points() -> None:
    known = some(60)
    whole, near = np.array([1.0, 18.0]), np.array([0.5, 18.0])
    model = Model(landscape(known), known, known.first(10), whole, seed=0, nearer=[near])
    none, rng = np.empty((0, 6)), np.random.default_rng(0)
    alone = Model(landscape(known), known, known.first(10), near, seed=0)
    second = model.best(known, none, known.rows, 2, rng)  # the second turn of two explorations each
    assert (second == alone.best(known, none, known.rows, 2, rng)).all()
    assert losses(second[None])[0, 0] < 0.5
