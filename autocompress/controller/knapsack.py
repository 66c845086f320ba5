"""One choice for every layer: least total score within budgets, exactly."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_array, hstack

from autocompress.core.schema import check_number
from autocompress.errors import InvalidInputError, SearchFailedError, explain

FloatArray = NDArray[np.float64]
Table = Sequence[ArrayLike]

NOTHING = 1e-12
"""Share of the largest cost below which a budget is a rounding error."""

SCALE = 1e3
"""Spread that scores are brought to: the solver's absolute gap of 1e-6 is then far below them."""

ROUNDING = 1e-9
"""Excess over a budget, relative to it, that is put down to adding up floats."""

CUTS = 50
"""Solutions to exclude for exceeding a budget by less than the solver's tolerance."""

MARGIN = 2e-6
"""Share of a budget that is given up after that many."""


def allocate(
    scores: Table,
    costs: Table | Sequence[Table] | Mapping[str, Table],
    budgets: float | Sequence[float] | Mapping[str, float],
    ties: Iterable[Sequence[int]] = (),
    *,
    gap: float = 0.0,
) -> list[int]:
    """Choose one option per layer: least sum of scores with every budget kept.

    The multiple-choice knapsack min sum_lc s_lc z_lc with sum_c z_lc = 1 and
    one row of costs per budget, as HAWQ-V3 allocates bits (Yao et al. 2021,
    equation 10), solved to optimality by branch and bound (HiGHS). Layers
    that are tied take the same option.

    Args:
        scores: For each of n layers, the score of each of its options, such
            as a sensitivity; the lower the better. Layers may have different
            numbers of options.
        costs: A table shaped like `scores`, or one such table per budget.
        budgets: The largest sum of costs: a number, or one number for each
            table, in a sequence or by the tables' names.
        ties: Groups of layer numbers that take the same option; groups that
            share a layer are one.
        gap: Distance from the optimum, as a fraction of it, at which the
            search for a better solution may end; 0 goes on to the optimum.

    Returns:
        The chosen option of each layer, counted from 0.

    Raises:
        InvalidInputError: If shapes do not fit, a value is not finite, or
            nothing keeps the budgets; then it names the nearest ones that
            can be kept.

    Example:
        >>> scores = [[0.0, 1.0, 4.0], [0.0, 2.0]]
        >>> allocate(scores, [[8, 4, 2], [8, 4]], budgets=12)
        [1, 0]
        >>> allocate(scores, {"size": [[8, 4, 2], [8, 4]]}, {"size": 5})
        Traceback (most recent call last):
        autocompress.errors.InvalidInputError: budget of 'size': expected at least 6, got 5; \
raise it to that, or offer cheaper options.
    """
    check_number("'gap'", gap, low=0.0)
    names, tables, limits = _read_budgets(costs, budgets)
    rows = _rows("scores", scores)
    merged, members = _merge(rows, [_rows("costs", table) for table in tables], ties)
    offsets = np.cumsum([0] + [len(options) for options in merged[0]])
    flat = np.array([np.concatenate(table) for table in merged])
    picked = _solve(flat[0], flat[1:], limits, offsets, gap)
    if picked is None:
        raise InvalidInputError(_nearest(names, flat[1:], limits, offsets))
    chosen = [0] * len(rows)
    for group, option in zip(members, picked - offsets[:-1], strict=True):
        for layer in group:
            chosen[layer] = int(option)
    return chosen


def _solve(
    scores: FloatArray,
    costs: FloatArray,
    limits: FloatArray,
    offsets: NDArray[np.int64],
    gap: float,
) -> NDArray[np.int64] | None:
    """Return the columns of the best options, None if nothing keeps the limits."""
    lows = np.minimum.reduceat(scores, offsets[:-1])  # no choice lowers their sum, nor the gap's
    excess = scores - np.repeat(lows, np.diff(offsets))
    objective = SCALE * excess / (excess.max() or 1.0)
    unit = _units(costs, limits)
    slack = ROUNDING * unit
    rows, upper = costs / unit[:, None], (limits + slack) / unit
    one_each = _one_each(offsets)
    cuts: list[FloatArray] = []
    for attempt in range(CUTS + 1):
        if attempt == CUTS:
            upper = upper - MARGIN
        constraints = [
            LinearConstraint(one_each, 1.0, 1.0),
            LinearConstraint(csr_array(rows), -np.inf, upper),
        ]
        if cuts:
            constraints.append(LinearConstraint(np.array(cuts), -np.inf, len(offsets) - 2.0))
        found = _milp(objective, constraints, gap=gap)
        if found is None:
            return None
        picked = _options(found, offsets)
        if (costs[:, picked].sum(axis=1) <= limits + slack).all():
            return picked
        cuts.append(np.isin(np.arange(len(scores)), picked).astype(np.float64))
    raise SearchFailedError(
        explain(
            "allocation",
            expected="a solution within the budgets",
            got="only ones that exceed them by rounding errors",
            remedy="scale the costs to whole numbers",
        )
    )


def _nearest(
    names: Sequence[str], costs: FloatArray, limits: FloatArray, offsets: NDArray[np.int64]
) -> str:
    """Word the refusal of budgets, with those that need the least relative increase."""
    unit = _units(costs, limits)
    one_each = _one_each(offsets)
    rows = np.concatenate([costs / unit[:, None], -np.ones((len(limits), 1))], axis=1)
    padded = hstack([one_each, csr_array((one_each.shape[0], 1))])
    found = _milp(
        np.eye(rows.shape[1])[-1],
        [LinearConstraint(padded, 1.0, 1.0), LinearConstraint(rows, -np.inf, limits / unit)],
        free_last=True,
    )
    if found is None:  # some options are always within large enough budgets
        raise SearchFailedError(
            explain("allocation", expected="a solution", got="none", remedy="report this")
        )
    least = costs[:, _options(found, offsets)].sum(axis=1)
    every = zip(names, least, limits, strict=True)
    needed = [(name, low, limit) for name, low, limit in every if low > limit]
    many = len(needed) > 1
    return explain(
        ("budgets of " if many else "budget of ") + " and ".join(name for name, _, _ in needed),
        expected="at least " + " and ".join(f"{low:.10g}" for _, low, _ in needed),
        got=" and ".join(f"{limit:.10g}" for _, _, limit in needed),
        remedy=f"raise {'them' if many else 'it'} to that, or offer cheaper options",
    )


def _milp(
    objective: FloatArray,
    constraints: list[LinearConstraint],
    *,
    free_last: bool = False,
    gap: float = 0.0,
) -> FloatArray | None:
    """Minimise over zeros and ones; the last variable may be any number >= 0."""
    kinds, upper = np.ones(len(objective)), np.ones(len(objective))
    if free_last:
        kinds[-1], upper[-1] = 0.0, np.inf
    result = milp(
        objective,
        constraints=constraints,
        integrality=kinds,
        bounds=Bounds(0.0, upper),
        options={"mip_rel_gap": gap},
    )
    if result.status == 2:
        return None
    if result.x is None or result.status != 0:
        raise SearchFailedError(
            explain(
                "allocation",
                expected="an optimum",
                got=result.message,
                remedy="check the scale of scores and costs",
            )
        )
    return np.asarray(result.x, dtype=np.float64)


def _one_each(offsets: NDArray[np.int64]) -> csr_array:
    return csr_array(block_diag([np.ones((1, size)) for size in np.diff(offsets)]))


def _options(found: FloatArray, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the column that is largest within each layer; others are zero but for rounding."""
    return np.array([low + int(np.argmax(found[low:high])) for low, high in pairwise(offsets)])


def _units(costs: FloatArray, limits: FloatArray) -> FloatArray:
    """Return what each budget is measured in: itself, or the largest cost where it is about 0."""
    largest = np.abs(costs).max(axis=1)
    sizes = np.abs(limits)
    usable = sizes > np.where(np.isfinite(largest), NOTHING * largest, 0.0)
    return np.where(usable, sizes, np.where(largest > 0.0, largest, 1.0))


def _merge(
    scores: list[FloatArray], costs: list[list[FloatArray]], ties: Iterable[Sequence[int]]
) -> tuple[list[list[FloatArray]], list[list[int]]]:
    """Add up what is tied; return the tables, scores first, and each row's layers."""
    for table in costs:
        if [len(row) for row in table] != [len(row) for row in scores]:
            raise _refusal(
                "costs", "as many options per layer as scores", [len(row) for row in table]
            )
    home = list(range(len(scores)))
    for group in ties:
        if isinstance(group, str) or not isinstance(group, Collection):
            raise _refusal("ties", "groups of layer numbers, such as [[0, 1]]", group)
        if any(not 0 <= layer < len(scores) for layer in group):
            raise _refusal("ties", f"layer numbers from 0 to {len(scores) - 1}", list(group))
        homes = {home[layer] for layer in group}
        home = [min(homes) if h in homes else h for h in home]
    members = [[n for n, h in enumerate(home) if h == first] for first in sorted(set(home))]
    for group in members:
        if len({len(scores[layer]) for layer in group}) > 1:
            raise _refusal("ties", "layers with the same number of options", group)
    tables = [scores, *costs]
    return [[np.sum([t[n] for n in group], axis=0) for group in members] for t in tables], members


def _read_budgets(
    costs: Table | Sequence[Table] | Mapping[str, Table],
    budgets: float | Sequence[float] | Mapping[str, float],
) -> tuple[list[str], list[Table], FloatArray]:
    """Return names, tables and limits of the budgets."""
    tables: list[Table]
    if isinstance(budgets, Mapping) or isinstance(costs, Mapping):
        if not (isinstance(budgets, Mapping) and isinstance(costs, Mapping)):
            raise _refusal("costs and budgets", "names for both or for neither", "names for one")
        if set(costs) != set(budgets):
            raise _refusal("budgets", f"the names of the costs, {sorted(costs)}", sorted(budgets))
        names = [f"'{name}'" for name in costs]
        tables, limits = list(costs.values()), [budgets[name] for name in costs]
    elif np.ndim(budgets) == 0:
        names, tables, limits = ["the costs"], [cast("Table", costs)], [cast("float", budgets)]
    else:
        tables, limits = (
            list(cast("Sequence[Table]", costs)),
            list(cast("Sequence[float]", budgets)),
        )
        names = [f"costs {number}" for number in range(len(tables))]
    if len(tables) != len(limits) or not tables:
        raise _refusal("budgets", f"one for each of {len(tables)} tables of costs", len(limits))
    try:
        numbers = np.array([float(limit) for limit in limits])
    except (TypeError, ValueError) as error:
        raise _refusal("budgets", "numbers", error) from error
    if not np.isfinite(numbers).all():
        raise _refusal("budgets", "finite numbers", numbers.tolist())
    return names, tables, numbers


def _rows(what: str, table: Table) -> list[FloatArray]:
    try:
        rows = [np.asarray(row, dtype=np.float64) for row in table]
    except (TypeError, ValueError) as error:
        raise _refusal(what, "one list of numbers per layer", error) from error
    if not rows or any(row.ndim != 1 or not row.size for row in rows):
        raise _refusal(what, "one list of numbers per layer", [row.shape for row in rows])
    if not all(np.isfinite(row).all() for row in rows):
        raise _refusal(what, "finite numbers", "NaN or infinity")
    return rows


def _refusal(what: str, expected: str, got: object) -> InvalidInputError:
    return InvalidInputError(
        explain(f"{what} to allocate", expected=expected, got=got, remedy="correct them")
    )
