"""Exact allocation, against brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.controller.knapsack import allocate
from autocompress.errors import InvalidInputError


def brute_force(scores, tables, limits, ties=()):
    """Return the least sum of scores within the limits, None if nothing keeps them."""
    best = None
    for options in product(*(range(len(row)) for row in scores)):
        if any(len({options[layer] for layer in group}) > 1 for group in ties):
            continue
        sums = [sum(t[n][c] for n, c in enumerate(options)) for t in tables]
        if all(total <= limit for total, limit in zip(sums, limits, strict=True)):
            value = sum(scores[n][c] for n, c in enumerate(options))
            best = value if best is None else min(best, value)
    return best


def total(table, options):
    return sum(row[option] for row, option in zip(table, options, strict=True))


@st.composite
def instances(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    number = st.integers(-20, 20)
    tables = [
        [draw(st.lists(number, min_size=size, max_size=size)) for size in sizes]
        for _ in range(draw(st.integers(2, 4)))
    ]
    least = [sum(min(row) for row in table) for table in tables[1:]]
    limits = [low + draw(st.integers(-3, 25)) for low in least]
    alike = [[n for n, size in enumerate(sizes) if size == wanted] for wanted in (2, 3)]
    ties = [group[:2] for group in alike if len(group) > 1 and draw(st.booleans())]
    return tables[0], tables[1:], limits, ties


@given(instances())
def test_the_sum_is_that_of_brute_force_and_refusals_are_right(instance):
    scores, tables, limits, ties = instance
    best = brute_force(scores, tables, limits, ties)
    if best is None:
        with pytest.raises(InvalidInputError, match=r"budgets? of .*expected at least"):
            allocate(scores, tables, limits, ties)
        return
    options = allocate(scores, tables, limits, ties)
    assert total(scores, options) == pytest.approx(best, abs=1e-9)
    assert all(total(t, options) <= limit for t, limit in zip(tables, limits, strict=True))
    assert all(len({options[layer] for layer in group}) == 1 for group in ties)


def test_sums_of_floats_that_equal_a_budget_keep_it():
    assert allocate([[3.0, 0.0], [3.0, 0.0]], [[0.0, 0.1], [0.0, 0.2]], 0.3) == [1, 1]


def test_a_budget_exceeded_by_less_than_the_solvers_tolerance_is_kept():
    scores, costs = [[1.0, 0.0]] * 3, [[0, 10_000_000], [0, 10_000_001], [0, 10_000_002]]
    assert allocate(scores, costs, 10_000_000) == [1, 0, 0]
    options = allocate(scores, costs, 20_000_001)
    assert options == [1, 1, 0]


def test_tiny_differences_of_scores_decide():
    scores = [[1e-9, 2e-9], [1.0, 1.0]]
    assert allocate(scores, [[2, 1], [1, 1]], 3) == [0, 0]
    assert allocate([[2e-9, 1e-9], [0.5, 1.0]], [[1, 1], [1, 1]], 2) == [1, 0]


def test_ties_that_share_a_layer_are_one():
    scores = [[0.0, 5.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    costs = [[2, 1]] * 4
    assert allocate(scores, costs, 7, ties=[(1, 2), (2, 3)]) == [0, 1, 1, 1]


def test_the_nearest_budgets_can_be_kept():
    scores, size, time = [[0, 1]] * 2, [[4, 2]] * 2, [[1, 3]] * 2
    with pytest.raises(InvalidInputError, match="budget of 'size': expected at least 8, got 5"):
        allocate(scores, {"size": size, "time": time}, {"size": 5, "time": 2})
    with pytest.raises(InvalidInputError, match=r"'size' and 'time': .* 6 and 4, got 5 and 3;"):
        allocate(scores, {"size": size, "time": time}, {"size": 5, "time": 3})
    with pytest.raises(InvalidInputError, match="budget of 'size': expected at least 4, got 3"):
        allocate(scores, {"size": size, "time": time}, {"size": 3, "time": 6})
    assert allocate(scores, {"size": size, "time": time}, {"size": 4, "time": 6}) == [1, 1]


def test_sixty_layers_with_two_budgets_are_solved_at_many_budgets():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.lognormal(size=(60, 4)), axis=1)
    tables = [np.sort(rng.lognormal(size=(60, 4)), axis=1)[:, ::-1] for _ in range(2)]
    values = []
    for share in (0.2, 0.5, 0.9):
        limits = [
            (1 - share) * table.min(axis=1).sum() + share * table.max(axis=1).sum()
            for table in tables
        ]
        options = allocate(list(scores), [list(t) for t in tables], limits)
        values.append(total(scores, options))
        assert all(total(t, options) <= b for t, b in zip(tables, limits, strict=True))
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[0, 1]], [[0, 1, 2]], 1), "as many options"),
        (([[0, 1]], [[0, float("nan")]], 1), "finite"),
        (([[0, 1]], [[0, 1]], float("inf")), "finite"),
        (([], [], 1), "one list of numbers per layer"),
        (([[0, 1]], {"a": [[0, 1]]}, 3), "names for both"),
        (([[0, 1]], {"a": [[0, 1]]}, {"b": 3}), "the names of the costs"),
        (([[0, 1]], [[[0, 1]]], [1, 2]), "one for each"),
        (([[0, 1]], [[0, 1]], 1, [(0, 1)]), "layer numbers"),
        (([[0, 1]], [[0, 1]], 1, [0]), "groups of layer numbers"),
        (([[0, 1]], [[0, "x"]], 1), "costs to allocate: expected one list of numbers"),
        (([[0, 1]], [[0, 1]], "abc"), "budgets to allocate"),
        (([[0, 1]], [[0, 1]], None), "budgets to allocate"),
        (([[0, 1], [0, 1, 2]], [[0, 1], [0, 1, 2]], 9, [(0, 1)]), "same number of options"),
    ],
)
def test_bad_input_is_refused(arguments, said):
    with pytest.raises(InvalidInputError, match=said):
        allocate(*arguments)


@pytest.mark.parametrize("gap", [-1.0, float("nan")])
def test_a_gap_out_of_range_is_refused(gap):
    with pytest.raises(InvalidInputError, match="gap"):
        allocate([[0, 1]], [[0, 1]], 1, gap=gap)


def test_what_no_choice_can_change_does_not_widen_the_gap():
    rng = np.random.default_rng(3)
    for _ in range(6):
        scores = rng.gamma(1.0, 1.0, (12, 5))
        costs = rng.integers(1, 9, (12, 5))
        budget = int(costs.min(axis=1).sum() * 1.3)
        best = total(scores, allocate(scores, costs, budget))
        offset = allocate(scores + 1000.0 * np.arange(12)[:, None], costs, budget, gap=0.01)
        assert total(scores, offset) <= 1.011 * best


def test_a_budget_of_a_rounding_error_is_none():
    assert allocate([[0.0, 5.0], [0.0, 5.0]], [[1.0, 0.0], [1.0, 0.0]], 1e-17) == [1, 1]
