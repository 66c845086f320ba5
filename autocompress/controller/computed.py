"""What a search computes of parameters without a trial: costs, limits, sensitivities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.forecast import Forecast
from autocompress.controller.joint import JointSampler
from autocompress.controller.landscape import Activity, RowFunction
from autocompress.controller.sampler import distributions
from autocompress.core.candidate import Candidate
from autocompress.core.objective import ACCURACIES, cost_names
from autocompress.space.bound import BoundSpace

FloatArray = NDArray[np.float64]

TRAINING_PARAMETERS = ("temperature", "kd_weight", "feature_weight")
"""Parameters that neither costs nor the proxy depend on; the sampler leaves them to TPE."""

MANY_OBJECTIVES = 3
NEARER = (0.5, 0.25)
"""From so many objectives on, trials take turns with reference points at these shares of the
accuracy that may be lost: with several costs, the corner where all are least weighs more than the
rest of the front."""

MOST_KNOWN = 50_000
"""Candidates whose costs are remembered."""


def joint_sampler(
    space: BoundSpace, forecast: Forecast, sensitivities: "Sensitivities", seed: int
) -> JointSampler:
    """Make the sampler of a search: it learns accuracy, and computes all else.

    Args:
        space: The search space.
        forecast: Predicts costs; it may learn while the sampler is in use.
        sensitivities: What each choice costs by itself.
        seed: Decides the proposals together with the study.
    """
    varying = {n: d for n, d in distributions(space).items() if n not in TRAINING_PARAMETERS}
    computed = Computed(space, forecast, tuple(varying))
    return JointSampler(
        cost_fns={
            number: computed.loss(number)
            for number, objective in enumerate(forecast.objectives)
            if objective.name != "accuracy"
        },
        constraint_fns={
            constraint.name: computed.violation(constraint.name)
            for constraint in forecast.constraints
            if constraint.name not in ACCURACIES
        },
        features=sensitivities.features(tuple(varying)) if sensitivities else None,
        space=varying,
        active=effective(space, tuple(varying)),
        reference=forecast.reference().tolist(),
        nearer=[
            forecast.reference(share).tolist()
            for share in (NEARER if len(forecast.objectives) >= MANY_OBJECTIVES else ())
        ],
        seed=seed,
    )


class Computed:
    """Costs and violations of rows of parameters, of each row once."""

    def __init__(self, space: BoundSpace, forecast: Forecast, names: Sequence[str]) -> None:
        """Prepare for the columns of some parameters; the others take their lowest value.

        Args:
            space: The search space.
            forecast: Predicts costs.
            names: Parameters in the order of the columns.
        """
        self._space, self._forecast, self._columns = space, forecast, _columns(space, names)
        self._costs = cost_names(forecast.objectives, forecast.constraints)
        self._known: dict[bytes, FloatArray] = {}
        self._profile = forecast.profile

    def loss(self, number: int) -> RowFunction:
        """Return the function that computes one objective of `n x d` rows, `n` values."""
        return _Batched(lambda rows: self._of(rows)[:, number])

    def violation(self, name: str) -> RowFunction:
        """Return the function that computes one constraint's violation, `n` values."""
        names = [constraint.name for constraint in self._forecast.constraints]
        number = len(self._forecast.objectives) + names.index(name)
        return _Batched(lambda rows: self._of(rows)[:, number])

    def _of(self, rows: FloatArray) -> FloatArray:
        """Return the losses and the violations of each row, side by side."""
        if self._profile is not self._forecast.profile or len(self._known) > MOST_KNOWN:
            self._known, self._profile = {}, self._forecast.profile
        keys = [row.tobytes() for row in rows]
        new = {key: number for number, key in enumerate(keys) if key not in self._known}
        if new:
            fresh = np.nan_to_num(rows[list(new.values())])  # what is not active has no effect
            population = self._space.population(_completed(self._space, self._columns, fresh))
            costs = self._forecast.all_costs(population, self._costs)
            values = costs | {"accuracy": np.ones(len(fresh))}
            found = [*self._forecast.losses(values), *self._forecast.violations(values).values()]
            self._known |= zip(new, np.stack(found, axis=1, dtype=np.float64), strict=True)
        return np.array([self._known[key] for key in keys])


def _columns(space: BoundSpace, names: Sequence[str]) -> NDArray[np.intp]:
    """Return where in the space some parameters are."""
    known = [parameter.name for parameter in space.parameters]
    return np.array([known.index(name) for name in names], dtype=np.intp)


def _completed(space: BoundSpace, columns: NDArray[np.intp], rows: FloatArray) -> FloatArray:
    """Return a column for every parameter; those that are not given take their lowest value."""
    lowest = np.array([parameter.low for parameter in space.parameters])
    table = np.repeat(lowest[None], len(rows), axis=0)
    table[:, columns] = rows
    return table


class _Batched:
    """A function of a table, as the sampler wants it."""

    batched = True

    def __init__(self, function: Callable[[FloatArray], NDArray[Any]]) -> None:
        self._function = function

    def __call__(self, rows: FloatArray) -> NDArray[Any]:
        return self._function(rows)


class Sensitivities:
    """What each choice of each parameter does by itself, in nats; larger steps do no less.

    Choices that were not tried lie between those that were: a divergence grows
    as the square of the disturbance, so that its root is interpolated.
    """

    def __init__(self, tables: Mapping[str, Sequence[float]]) -> None:
        """Take one list per parameter: the damage of each level."""
        self.tables = {name: np.asarray(table, dtype=np.float64) for name, table in tables.items()}

    def __bool__(self) -> bool:
        return bool(self.tables)

    @classmethod
    def find(
        cls, space: BoundSpace, start: Candidate, known: Callable[[Candidate], float | None]
    ) -> "Sensitivities":
        """Look up what single changes of a candidate did.

        Args:
            space: The search space.
            start: The candidate.
            known: Returns the divergence of a candidate in nats, or None.
        """
        params, tables = space.to_params(start), {}
        ends = {parameter.name: int(parameter.high) for parameter in space.parameters}
        for name, found in single_changes(space, start, known).items():
            if len(found) > 1:
                tables[name] = _filled(found, int(params[name]), np.arange(ends[name] + 1))
        return cls(tables)

    def features(self, names: Sequence[str]) -> RowFunction:
        """Return the function that lists them for `n x d` rows, and adds them up.

        Args:
            names: Parameters in the order of the columns.
        """
        columns = [names.index(name) for name in self.tables]
        damage = np.zeros((len(columns), 1 + max(map(len, self.tables.values()), default=0)))
        for number, table in enumerate(self.tables.values()):
            damage[number, : len(table)] = table
        nothing = damage.shape[1] - 1  # what is not active does no damage

        def of_table(rows: FloatArray) -> FloatArray:
            levels = np.nan_to_num(rows[:, columns], nan=nothing).astype(int)
            parts = damage[np.arange(len(columns)), levels]
            return np.concatenate([parts, parts.sum(axis=1, keepdims=True)], axis=1)

        of_table.batched = True  # type: ignore[attr-defined]
        return of_table


def single_changes(
    space: BoundSpace, start: Candidate, known: Callable[[Candidate], float | None]
) -> dict[str, dict[int, float]]:
    """Return what single changes of a candidate did, in nats, by parameter and level.

    Args:
        space: The search space.
        start: The candidate; its own levels do nothing.
        known: Returns the divergence of a candidate in nats, or None.
    """
    params, base = space.to_params(start), known(start) or 0.0
    changes = {}
    for parameter in space.parameters:
        if parameter.kind != "int" or parameter.name == "criterion":
            continue
        found = {int(params[parameter.name]): 0.0}
        for level in range(int(parameter.low), int(parameter.high) + 1):
            changed = space.from_params(params | {parameter.name: level})
            divergence = None if level in found else known(changed)
            if divergence is not None:
                found[level] = max(0.0, divergence - base)
        changes[parameter.name] = found
    return changes


def _filled(found: Mapping[int, float], start: int, levels: NDArray[np.int64]) -> list[float]:
    """Fill the gaps between known levels, and go on beyond them at the last slope."""
    at = np.array(sorted(found))
    roots = np.sqrt([found[level] for level in at.tolist()])
    filled = np.interp(levels, at, roots)
    for end, inner, beyond in ((0, 1, levels < at[0]), (-1, -2, levels > at[-1])):
        if at[end] != start:  # milder than the start is as good
            slope = abs(roots[end] - roots[inner]) / abs(at[end] - at[inner])
            filled[beyond] += slope * np.abs(levels[beyond] - at[end])
    filled[start:] = np.maximum.accumulate(filled[start:])
    filled[: start + 1] = np.maximum.accumulate(filled[start::-1])[::-1]
    return [float(damage) for damage in filled**2]


def effective(space: BoundSpace, names: Sequence[str]) -> Activity:
    """Return the function that tells which of some parameters have an effect.

    Args:
        space: The search space; see `BoundSpace.active`.
        names: The parameters, in the order of the columns of its `n x d` tables.
    """
    columns = _columns(space, names)
    return _Batched(lambda rows: space.active(_completed(space, columns, rows))[:, columns])
