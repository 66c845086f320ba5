"""What is known of a sampler's rows: past trials, exact costs, features, active parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from autocompress.controller.genes import Genes
from autocompress.errors import InvalidInputError, explain

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

RowFunction = Callable[[Any], Any]
"""A function of one candidate's parameters; of an `n x d` table if its `batched` is true."""

Activity = Callable[[Any], Any]
"""Names the parameters that a trial with given values of all of them would suggest; of an
`n x d` table, `n x d` booleans, if its `batched` is true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Completed trials, in the order of their completion.

    Attributes:
        places: `n` numbers of trials before each that did not fail; below 0
            for those of earlier studies.
        rows: `n x d` genes, 0 where a parameter was not active.
        active: `n x d`, which parameters were.
        losses: `n x m`, all minimised.
        constraints: By key, `n` values, feasible at most 0; NaN where not set.
    """

    places: NDArray[np.int64]
    rows: FloatArray
    active: Mask
    losses: FloatArray
    constraints: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def own(self) -> Mask:
        """Which trials are of this study; the others only teach."""
        return np.asarray(self.places >= 0)

    @property
    def feasible(self) -> Mask:
        """Which trials violate no constraint."""
        held = [~(values > 0.0) for values in self.constraints.values()]
        return np.asarray(np.logical_and.reduce([np.ones(len(self), dtype=bool), *held]))

    def equals(self, other: "History") -> bool:
        """Tell whether rows, losses and constraints are the same."""
        return (
            np.array_equal(self.rows, other.rows)
            and np.array_equal(self.losses, other.losses)
            and self.constraints.keys() == other.constraints.keys()
            and all(
                np.array_equal(values, other.constraints[key], equal_nan=True)
                for key, values in self.constraints.items()
            )
        )

    def masked(self, active: Mask) -> "History":
        """Return the history with fewer active parameters, `n x d`."""
        active = self.active & active
        return replace(self, rows=np.where(active, self.rows, 0.0), active=active)

    def first(self, count: int) -> "History":
        """Return the history as it was after so many trials."""
        return History(
            places=self.places[:count],
            rows=self.rows[:count],
            active=self.active[:count],
            losses=self.losses[:count],
            constraints={key: values[:count] for key, values in self.constraints.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is known of `n` rows without a trial.

    Attributes:
        rows: `n x d` genes.
        active: `n x d`, which parameters a trial would suggest.
        costs: `n x c` exact objectives as losses, in the order of the functions.
        violations: `n` sums of violated constraints that can be computed.
        features: `n x f` extra inputs of the predictor.
    """

    rows: FloatArray
    active: Mask
    costs: FloatArray
    violations: FloatArray
    features: FloatArray


class Landscape:
    """Computes all that needs no trial."""

    def __init__(
        self,
        genes: Genes,
        history: History,
        *,
        costs: Mapping[int, RowFunction],
        constraints: Mapping[str, RowFunction],
        features: RowFunction | None,
        activity: Activity | None,
        signs: FloatArray,
    ) -> None:
        """Prepare for the trials of a study so far.

        Args:
            genes: The parameters.
            history: The trials; which parameters each had is learned from it
                where `activity` is not given.
            costs: Functions that compute objectives, by number.
            constraints: Functions that compute constraints, by key.
            features: Computes extra inputs of the predictor.
            activity: Tells which parameters are active.
            signs: `m` values, 1 where an objective is minimised, else -1.
        """
        self.genes = genes
        self.costs, self.constraints = tuple(costs), tuple(constraints)
        self._functions = (
            list(costs.values()),
            list(constraints.values()),
            [features] if features else [],
        )
        self.objectives, self._signs = len(signs), signs[list(costs)]
        self._activity = activity
        self._varying = ~history.active.all(axis=0)
        self._tree: DecisionTreeClassifier | None = None
        if activity is None and self._varying.any():
            self._tree = DecisionTreeClassifier(random_state=0)
            self._tree.fit(history.rows, history.active[:, self._varying])

    def canonical(self, rows: FloatArray) -> FloatArray:
        """Set what is not active to 0, so that equal trials are equal rows."""
        return np.where(self._active(rows), rows, 0.0)

    def view(self, rows: FloatArray) -> View:
        """Compute what is known of `n x d` canonical rows.

        Raises:
            InvalidInputError: If a function returns something else than
                finite numbers.
        """
        active = self._active(rows)
        costs, constraints, features = self._computed(rows, active, self._functions)
        return View(
            rows=rows,
            active=active,
            costs=costs * self._signs,
            violations=np.maximum(constraints, 0.0).sum(axis=1),
            features=features,
        )

    def violations(self, rows: FloatArray) -> FloatArray:
        """Add up the violated constraints that can be computed, `n` values."""
        (constraints,) = self._computed(rows, self._active(rows), self._functions[1:2])
        return np.asarray(np.maximum(constraints, 0.0).sum(axis=1))

    def _computed(
        self, rows: FloatArray, active: Mask, groups: Sequence[Sequence[RowFunction]]
    ) -> list[FloatArray]:
        """Evaluate groups of functions of `n x d` rows; a table of `n` rows for each."""
        plain = any(not _batched(function) for group in groups for function in group)
        params = self._params(rows, active) if plain else []
        table = np.where(active, self.genes.values(rows), np.nan)
        return [_side_by_side(group, params, table) for group in groups]

    def inputs(self, view: View) -> tuple[FloatArray, range]:
        """Return the predictor's inputs, `n x p`, and which columns are features."""
        sizes = np.abs(view.costs)
        parts = [
            self.genes.describe(view.rows),
            view.active[:, self._varying].astype(np.float64),
            np.sign(view.costs) * np.log(sizes, out=np.zeros_like(sizes), where=sizes > 0.0),
            view.features,
        ]
        table = np.concatenate(parts, axis=1)
        return table, range(table.shape[1] - view.features.shape[1], table.shape[1])

    def _active(self, rows: FloatArray) -> Mask:
        """Tell which parameters a trial of each row would suggest, `n x d`."""
        if self._activity is not None:
            return active_parameters(self._activity, self.genes, rows)
        mask = np.ones(rows.shape, dtype=bool)
        if self._tree is not None:
            found = np.asarray(self._tree.predict(rows), dtype=bool)
            mask[:, self._varying] = found.reshape(len(rows), -1)
        return mask

    def _params(self, rows: FloatArray, active: Mask) -> list[dict[str, Any]]:
        """Return the parameters of each row, those that are active."""
        found = [self.genes.decode(row) for row in rows]
        if active.all():
            return found
        return [
            {name: value for (name, value), flag in zip(params.items(), flags, strict=True) if flag}
            for params, flags in zip(found, active, strict=True)
        ]


def active_parameters(activity: Activity, genes: Genes, rows: FloatArray) -> Mask:
    """Ask which parameters of `n x d` rows are active, `n x d`."""
    if _batched(activity):
        return np.asarray(activity(genes.values(rows)), dtype=bool)
    mask = np.ones(rows.shape, dtype=bool)
    for row, flags in zip(rows, mask, strict=True):
        names = activity(genes.decode(row))
        flags[:] = [name in names for name in genes.distributions]
    return mask


def _batched(function: RowFunction | Activity) -> bool:
    return bool(getattr(function, "batched", False))


def _side_by_side(
    functions: Sequence[RowFunction], params: Sequence[Mapping[str, Any]], table: FloatArray
) -> FloatArray:
    """Evaluate functions and put their columns beside each other."""
    columns = [np.empty((len(table), 0))]
    for function in functions:
        found = function(table) if _batched(function) else [function(one) for one in params]
        values = np.asarray(found, dtype=np.float64)
        if values.size % max(1, len(table)) or not np.isfinite(values).all():
            raise InvalidInputError(
                explain(
                    "a function of the parameters",
                    expected="as many finite numbers for each candidate",
                    got=f"an array of shape {values.shape} with "
                    f"{np.count_nonzero(~np.isfinite(values))} that are not finite",
                    remedy="correct the function",
                )
            )
        columns.append(values.reshape(len(table), -1))
    return np.concatenate(columns, axis=1)
