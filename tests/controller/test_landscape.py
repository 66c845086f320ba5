from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History, Landscape
from autocompress.errors import InvalidInputError

GENES = Genes.of(
    {
        "drop": IntDistribution(0, 1),
        "inner": IntDistribution(0, 3),
        "kind": CategoricalDistribution(("a", "b")),
    }
)
ROWS = np.array([[0, 2, 1], [1, 2, 0], [0, 0, 0], [1, 3, 1]], dtype=np.float64)


def history(active: np.ndarray | None = None) -> History:
    mask = np.ones(ROWS.shape, dtype=bool) if active is None else active
    return History(
        places=np.arange(len(ROWS)),
        rows=np.where(mask, ROWS, 0.0),
        active=mask,
        losses=np.zeros((len(ROWS), 2)),
        constraints={},
    )


def landscape(known: History | None = None, **functions: Any) -> Landscape:
    given = {"costs": {}, "constraints": {}, "features": None, "activity": None} | functions
    return Landscape(GENES, known or history(), signs=np.array([1.0, -1.0]), **given)


def active(params: Mapping[str, Any]) -> list[str]:
    return ["drop", "kind"] if params["drop"] else list(params)


def test_functions_of_dictionaries_and_of_tables_agree() -> None:
    def one(params: Mapping[str, Any]) -> float:
        return float(params["inner"] + 10 * (params["kind"] == "b"))

    def many(table: np.ndarray) -> np.ndarray:
        return np.asarray(table[:, 1] + 10.0 * table[:, 2])

    many.batched = True  # type: ignore[attr-defined]
    views = [
        landscape(costs={1: cost}, constraints={"limit": cost}, features=cost).view(ROWS)
        for cost in (one, many)
    ]
    for view in views:
        assert view.costs[:, 0].tolist() == [-12.0, -2.0, 0.0, -13.0]  # maximised: its sign turns
        assert view.violations.tolist() == [12.0, 2.0, 0.0, 13.0]
        assert view.features[:, 0].tolist() == [12.0, 2.0, 0.0, 13.0]
    table, features = landscape(costs={1: many}, features=many).inputs(views[1])
    assert table.shape[1] == 4 + 1 + 1
    assert list(features) == [5]
    np.testing.assert_allclose(table[:, 4], [-np.log(12.0), -np.log(2.0), 0.0, -np.log(13.0)])


@pytest.mark.parametrize("given", [True, False])
def test_what_is_not_active_is_zero_by_rule_or_by_example(given: bool) -> None:
    mask = np.ones(ROWS.shape, dtype=bool)
    mask[ROWS[:, 0] == 1.0, 1] = False
    known = history(mask)
    found = landscape(known, activity=active if given else None)
    assert found.canonical(ROWS)[:, 1].tolist() == [2.0, 0.0, 0.0, 0.0]
    view = found.view(found.canonical(ROWS))
    assert view.active[:, 1].tolist() == [True, False, True, False]
    assert found.inputs(view)[0].shape[1] == 4 + 1  # whether 'inner' is active


def test_a_history_can_be_masked_by_a_rule() -> None:
    whole = history()
    mask = np.ones(ROWS.shape, dtype=bool)
    mask[:, 1] = False
    masked = whole.masked(mask)
    assert masked.rows[:, 1].tolist() == [0.0] * 4
    assert not whole.equals(masked)
    assert len(whole.first(2)) == 2


@pytest.mark.parametrize("result", [float("nan"), [1.0, 2.0, 3.0]])
def test_functions_that_return_something_else_are_refused(result: object) -> None:
    def wrong(_: object) -> object:
        return result

    wrong.batched = True  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="correct the function"):
        landscape(costs={0: wrong}).view(ROWS)
