"""Exact allocations of what choices cost by themselves, at several budgets."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.computed import Sensitivities, effective
from autocompress.controller.knapsack import allocate
from autocompress.core.candidate import Candidate
from autocompress.core.pareto import non_dominated_mask
from autocompress.errors import InvalidInputError, SearchFailedError
from autocompress.space.bound import BoundSpace

FloatArray = NDArray[np.float64]

Costs = Callable[[Sequence[Candidate]], FloatArray]
"""Returns `n x c` costs of `n` candidates."""

RESOLVES = 4
"""Times that a budget is solved; each time corrected by what the last solution missed it by."""

TIGHT = 0.03
"""Share of a budget that a solution may leave unused."""

GAP = 0.01
"""Distance from the least damage, as a fraction, at which a solution is good enough."""


def allocated(
    space: BoundSpace,
    start: Candidate,
    sensitivities: Sensitivities,
    costs: Costs,
    budgets: FloatArray,
) -> list[Candidate]:
    """Allocate one candidate to each of several budgets.

    Every parameter takes one choice: the sum of sensitivities is least within
    the budget (HAWQ-V3, Yao et al. 2021, equation 10). Costs do not add up,
    since two prunings of one layer multiply and a dropped block takes its
    layers along. So they are linearised around the solution of the budget
    before, and what a solution misses the budget by corrects the next one; those
    returned keep their budget exactly.

    Args:
        space: The space.
        start: The candidate whose single changes were tried.
        sensitivities: What they did.
        costs: Exact costs of candidates.
        budgets: `n x c` limits, the largest first; infinite where there is none.

    Returns:
        Candidates without repetition, for those budgets that can be kept.
    """
    damage = _Damage(space, space.to_params(start), sensitivities)
    params, found = damage.start, {start: None}
    for limits in budgets:
        near, target = _Changes(space, params, damage, costs), limits
        kept = []
        for _ in range(RESOLVES):
            moved = near.least(target)
            if moved is None:
                break
            over = costs([space.from_params(moved)])[0] / limits - 1.0
            if over.max() <= 0.0:
                kept.append((float(damage([moved])[0]), moved))
            if -TIGHT <= over.max() <= 0.0:
                break
            target = target - over * limits
        if kept:
            params = min(kept, key=lambda known: known[0])[1]
            found[space.from_params(params)] = None
    return list(found)[1:]


def even_budgets(high: FloatArray, low: FloatArray, count: int) -> list[FloatArray]:
    """Spread budgets evenly between two points: of all costs at once, and of each alone.

    Args:
        high: `c` costs to stay below.
        low: `c` least costs.
        count: How many in all, at least.

    Returns:
        One `n x c` table per series, the largest budgets first.

    Example:
        >>> [table.tolist() for table in even_budgets(np.array([4.0]), np.array([1.0]), 2)]
        [[[3.0], [2.0]]]
    """
    every = range(len(high))
    series = [tuple(every), *combinations(every, 1)] if len(high) > 1 else [(0,)]
    steps = -(-count // len(series))
    shares = np.linspace(0.0, 1.0, steps + 2)[1:-1, None]
    whole = high + shares * (low - high)
    return [np.where(np.isin(every, limited), whole, np.inf) for limited in series]


class _Damage:
    """The sum of sensitivities of those parameters that have an effect."""

    def __init__(
        self, space: BoundSpace, start: dict[str, float], sensitivities: Sensitivities
    ) -> None:
        self.start = start
        self.tables: Mapping[str, FloatArray] = {
            name: table[: int(start[name]) + 1] if name.startswith("precision:") else table
            for name, table in sensitivities.tables.items()
        }  # no wider bits than at the start, which were not tried
        self._active = effective(space, tuple(start))

    def __call__(self, many: Sequence[Mapping[str, float]]) -> FloatArray:
        """Add up the sensitivities of each of `n` sets of parameters."""
        rows = self._rows(many)
        active = self._active(rows)
        total = np.zeros(len(rows))
        for column, name in enumerate(self.start):
            if name in self.tables:
                found = self.tables[name][rows[:, column].astype(int)]
                total += np.where(active[:, column], found, 0.0)
        return total

    def settled(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return parameters of which those without an effect are as at the start."""
        active = self._active(self._rows([params]))[0].tolist()
        return {
            n: params[n] if on else self.start[n] for n, on in zip(self.start, active, strict=True)
        }

    def _rows(self, many: Sequence[Mapping[str, float]]) -> FloatArray:
        return np.array([[params[name] for name in self.start] for params in many], np.float64)


class _Changes:
    """What all single changes of some parameters do to damage and costs."""

    def __init__(
        self, space: BoundSpace, params: dict[str, float], damage: _Damage, costs: Costs
    ) -> None:
        self._params, self._damage = params, damage
        self._here = costs([space.from_params(params)])[0]
        self._levels, self._scores, self._added = [], [], []
        for name, table in damage.tables.items():
            changed = [params | {name: level} for level in range(len(table))]
            scores = damage(changed)
            added = costs([space.from_params(one) for one in changed]) - self._here
            useful = non_dominated_mask(np.concatenate([scores[:, None], added], axis=1))
            self._levels.append(np.flatnonzero(useful).tolist())
            self._scores.append(scores[useful])
            self._added.append(added[useful])

    def least(self, limits: FloatArray) -> dict[str, float] | None:
        """Change all parameters at once for the least damage, as if changes added up."""
        limited = np.flatnonzero(np.isfinite(limits))
        tables = [[added[:, number] for added in self._added] for number in limited]
        try:
            picked = allocate(self._scores, tables, (limits - self._here)[limited], gap=GAP)
        except (InvalidInputError, SearchFailedError):  # out of reach from here, or too hard
            return None
        chosen = [levels[option] for levels, option in zip(self._levels, picked, strict=True)]
        names = self._damage.tables
        return self._damage.settled(self._params | dict(zip(names, chosen, strict=True)))
