from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from autocompress.core.pareto import (
    greedy_hypervolume,
    hypervolume,
    non_dominated_mask,
    non_dominated_rank,
)
from autocompress.errors import InvalidInputError

Table = NDArray[np.float64]

REFERENCE = 4.0


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 6, max_columns: int = 4) -> Table:
    """Small tables on a coarse grid, so that ties and duplicates are common."""
    shape = draw(st.tuples(st.integers(1, max_rows), st.integers(1, max_columns)))
    cells = st.integers(0, 10).map(lambda step: step / 2)
    return draw(arrays(np.float64, shape, elements=cells))


def dominates(one: Table, other: Table) -> bool:
    return bool((one <= other).all() and (one < other).any())


def volume_by_inclusion_exclusion(table: Table, corner: Table) -> float:
    """Sum the overlaps of all subsets of boxes with alternating signs."""
    inside = [row for row in table if (row < corner).all()]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for subset in combinations(inside, size):
            total += (-1) ** (size + 1) * np.prod(corner - np.max(subset, axis=0))
    return total


@given(tables())
def test_the_mask_agrees_with_the_definition(table: Table) -> None:
    expected = [not any(dominates(other, row) for other in table) for row in table]
    assert non_dominated_mask(table).tolist() == expected


@given(tables())
def test_ranks_peel_the_table(table: Table) -> None:
    ranks = non_dominated_rank(table)
    assert ((ranks == 0) == non_dominated_mask(table)).all()
    for row, rank in zip(table, ranks, strict=True):
        above = [r for other, r in zip(table, ranks, strict=True) if dominates(other, row)]
        assert rank == max(above, default=-1) + 1


@given(tables())
def test_hypervolume_agrees_with_inclusion_and_exclusion(table: Table) -> None:
    corner = np.full(table.shape[1], REFERENCE)
    expected = volume_by_inclusion_exclusion(table, corner)
    assert hypervolume(table, corner) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_hypervolume_agrees_with_monte_carlo() -> None:
    generator = np.random.default_rng(0)
    table = generator.random((25, 3))
    samples = generator.random((40_000, 3))
    dominated = (table[None] <= samples[:, None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(table, np.ones(3)) == pytest.approx(dominated, abs=0.01)


@given(tables())
def test_hypervolume_ignores_order_and_dominated_rows(table: Table) -> None:
    corner = np.full(table.shape[1], REFERENCE)
    front = table[non_dominated_mask(table)]
    assert hypervolume(front[::-1], corner) == pytest.approx(hypervolume(table, corner))


@given(tables(max_rows=5))
@settings(max_examples=50)
def test_greedy_choice_adds_the_most_volume_each_time(table: Table) -> None:
    corner = np.full(table.shape[1], REFERENCE)
    order = greedy_hypervolume(table, corner, len(table))
    assert len(set(order)) == len(order)
    for step, row in enumerate(order):
        before = order[:step]
        volume = hypervolume(table[[*before, row]], corner)
        rivals = [hypervolume(table[[*before, other]], corner) for other in range(len(table))]
        assert volume == max(rivals)
        assert volume > (hypervolume(table[before], corner) if before else 0.0)
    left = hypervolume(table[order], corner) if order else 0.0
    assert left == pytest.approx(hypervolume(table, corner))


def test_greedy_choice_respects_count_and_what_is_chosen() -> None:
    table = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
    corner = np.array([4.0, 4.0])
    assert greedy_hypervolume(table, corner, 1) == [1]
    assert greedy_hypervolume(table, corner, 0) == []
    assert greedy_hypervolume(table, corner, 9, chosen=(1,)) == [0, 2]


def test_greedy_choice_stops_at_rows_that_add_nothing() -> None:
    generator = np.random.default_rng(1)
    front = generator.random((8, 3))
    worse = front + 0.1
    order = greedy_hypervolume(np.vstack([front, worse]), np.full(3, 2.0), 16)
    assert max(order) < 8


def test_an_empty_table_has_no_front_and_no_volume() -> None:
    empty = np.empty((0, 2))
    assert non_dominated_mask(empty).shape == (0,)
    assert hypervolume(empty, np.ones(2)) == 0.0


@pytest.mark.parametrize("losses", [np.zeros(3), np.zeros((2, 0)), np.zeros((1, 2, 3))])
def test_other_shapes_are_refused(losses: Table) -> None:
    with pytest.raises(InvalidInputError, match="expected an n x m array"):
        non_dominated_mask(losses)


def test_nan_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected no NaN"):
        non_dominated_rank(np.array([[np.nan, 1.0]]))


def test_a_reference_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="one value per objective"):
        hypervolume(np.zeros((1, 2)), np.ones(3))
