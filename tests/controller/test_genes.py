import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autocompress.controller.genes import Genes

SPACE: dict[str, BaseDistribution] = {
    "count": IntDistribution(2, 11, step=3),
    "wide": IntDistribution(1, 5000, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "stepped": FloatDistribution(-0.5, 0.5, step=0.25),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "kind": CategoricalDistribution(("a", None, 3)),
    "one": IntDistribution(4, 4),
    "fixed": FloatDistribution(2.0, 2.0),
}
GENES = Genes.of(SPACE)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.booleans())
def test_rows_become_parameters_and_come_back(seed: int, level: bool) -> None:
    rng = np.random.default_rng(seed)
    draw = GENES.draw_level if level else GENES.draw
    for row in draw(5, rng):
        params = GENES.decode(row)
        assert list(params) == list(SPACE)
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), name
        np.testing.assert_allclose(GENES.encode(params), row, atol=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_children_and_neighbours_stay_in_the_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = GENES.draw(6, rng)
    children = GENES.vary(parents, parents[::-1], rng)
    columns, neighbours = GENES.neighbours(parents[0], rng)
    for row in (*children, *neighbours):
        np.testing.assert_allclose(GENES.encode(GENES.decode(row)), row, atol=1e-9)
    changed = (neighbours != parents[0]).sum(axis=1)
    assert changed.max() <= 1
    few = columns == list(SPACE).index("kind")
    assert sorted({*neighbours[few, 5], parents[0, 5]}) == [0.0, 1.0, 2.0]


def test_columns_say_what_they_hold() -> None:
    assert GENES.sizes.tolist() == [4, 5000, 0, 5, 0, 3, 1, 1]
    params = {
        "count": 8,
        "wide": 1,
        "share": 0.25,
        "stepped": 0.0,
        "rate": 1e-2,
        "kind": 3,
        "one": 4,
        "fixed": 2.0,
    }
    row = GENES.encode(params)
    np.testing.assert_allclose(row, [2, 0, 0.25, 2, 0.5, 2, 0, 0])
    np.testing.assert_allclose(
        GENES.values(row[None])[0], [8, 1, 0.25, 0.0, 1e-2, 2, 4, 2], atol=1e-12
    )
    described = GENES.describe(row[None])[0]
    np.testing.assert_allclose(
        described, [2 / 3, 0.0, 0.25, 0.5, 0.5, 0.0, 0.0, 0, 0, 1], atol=1e-12
    )


@pytest.mark.parametrize("wrong", [{"count": 9}, {"count": 14}, {"kind": "b"}, {"share": 2.0}])
def test_what_is_missing_or_outside_is_not_a_number(wrong: dict[str, object]) -> None:
    params = GENES.decode(GENES.draw(1, np.random.default_rng(0))[0])
    name = next(iter(wrong))
    at = list(SPACE).index(name)
    assert np.flatnonzero(np.isnan(GENES.encode(params | wrong))).tolist() == [at]
    del params[name]
    assert np.flatnonzero(np.isnan(GENES.encode(params))).tolist() == [at]


def test_mutations_change_a_few_columns() -> None:
    genes = Genes.of({f"x{n}": IntDistribution(0, 9) for n in range(100)})
    rng = np.random.default_rng(0)
    rows = genes.draw(200, rng)
    changed = (genes.mutate(rows, rng) != rows).sum(axis=1)
    assert 1.0 < changed.mean() < 4.0
    assert changed.max() < 20
