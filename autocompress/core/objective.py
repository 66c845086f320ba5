"""Objectives and constraints; the only place that knows directions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from autocompress.core.plugins import load_plugin, plugin_names
from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, WrongTypeError, explain

COSTS: Mapping[str, str] = {
    "latency_ms": "ms",
    "size_bytes": "bytes",
    "energy_mj": "mJ",
    "peak_memory_bytes": "bytes",
    "macs": "MACs",
    "bops": "bit operations",
    "parameters": "parameters",
}
"""Costs that can be minimised or bounded, with their units."""

DEVICE_COSTS = ("latency_ms", "energy_mj")
"""Costs that only the target tells; all others follow from the candidate."""

T = TypeVar("T", float, NDArray[Any])
"""A number, or many in an array."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A cost of one's own, registered under the entry points `autocompress.costs`.

    Attributes:
        unit: Its unit, for tables and plots.
        compute: Computes it from the structure of the original model, a
            `ModelGraph`, and a `Candidate`, without building anything; > 0.
    """

    unit: str
    compute: Callable[[Any, Any], float]


def known_costs() -> tuple[str, ...]:
    """List the names of all costs, registered ones last."""
    return (*COSTS, *(name for name in plugin_names("costs") if name not in COSTS))


def cost_unit(name: str) -> str:
    """Return the unit of a cost."""
    return COSTS[name] if name in COSTS else load_plugin("costs", name, Cost).unit


_PREDICTED = {"accuracy": "1 - accuracy_predicted", "latency_ms": "latency_ms_predicted"}


ACCURACIES = ("accuracy", "accuracy_drop")
"""Names of constraints that only a trial can judge; the others limit costs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One quantity to optimise: accuracy upwards, any cost downwards.

    Attributes:
        name: "accuracy", a key of `COSTS`, or a registered cost.
    """

    name: str

    def __post_init__(self) -> None:
        known = ("accuracy", *known_costs())
        if self.name not in known:
            raise InvalidInputError(unknown_name("objective", str(self.name), known))

    def loss(self, values: Mapping[str, T]) -> T:
        """Turn the measured values of a candidate, or arrays of them, into losses to minimise.

        Example:
            >>> Objective(name="accuracy").loss({"accuracy": 0.75})
            0.25
        """
        value = values[self.name]
        return 1.0 - value if self.name == "accuracy" else value


def parse_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Read the objectives of a search.

    Raises:
        InvalidInputError: If accuracy or every cost is missing, or one repeats.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise WrongTypeError(
            explain(
                "'objectives'",
                expected="a list of names",
                got=repr(names),
                remedy="write [accuracy, latency_ms]",
            )
        )
    objectives = tuple(Objective(name=name) for name in names)
    if "accuracy" not in names or len(set(names)) != len(names) or len(names) < 2:
        raise InvalidInputError(
            explain(
                "'objectives'",
                expected="'accuracy' and at least one cost, each once",
                got=list(names),
                remedy="write [accuracy, latency_ms]",
            )
        )
    return objectives


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """A limit that a front member must meet, as the user wrote it.

    Attributes:
        name: "accuracy" (at least), "accuracy_drop" (fraction lost against
            the original, at most) or a cost (at most).
        value: The limit in the unit of the name.
        relative: Whether `value` is a fraction of the fp32 artifact's cost.
    """

    name: str
    value: float
    relative: bool = False

    def limit(self, baseline: Mapping[str, float]) -> float:
        """Return the absolute limit, given the costs and accuracy of the original."""
        if self.name == "accuracy_drop":
            return baseline["accuracy"] - self.value
        return self.value * baseline[self.name] if self.relative else self.value

    def violation(self, values: Mapping[str, T], baseline: Mapping[str, float]) -> T:
        """Measure how far a candidate is from feasible.

        Args:
            values: "accuracy" and costs of the candidate, or arrays of them.
            baseline: The same of the unmodified model.

        Returns:
            A number that is at most 0 when the constraint is met, in
            accuracy for accuracies and as a fraction of the limit for costs.

        Example:
            >>> Constraint(name="latency_ms", value=0.6, relative=True).violation(
            ...     {"latency_ms": 0.9}, {"latency_ms": 1.0}) > 0
            True
        """
        limit = self.limit(baseline)
        if self.name in ACCURACIES:
            return limit - values["accuracy"]
        return values[self.name] / limit - 1.0

    def describe(self) -> str:
        """Return the constraint in words."""
        if self.name == "accuracy":
            return f"accuracy >= {self.value:g}"
        if self.relative:
            return f"{self.name} <= {self.value:.4g} of the original"
        return f"{self.name} <= {self.value:g}"

    def describe_value(self, values: Mapping[str, float], baseline: Mapping[str, float]) -> str:
        """Return what a candidate has of the constraint's quantity, in words like the limit's.

        Args:
            values: "accuracy" and costs of the candidate.
            baseline: The same of the unmodified model.

        Returns:
            The words, or nothing if the candidate has no such value.
        """
        if self.name == "accuracy_drop":
            return f"{self.name} {baseline['accuracy'] - values['accuracy']:.4g}"
        if self.name not in values:
            return ""
        if self.relative:
            return f"{self.name} {values[self.name] / baseline[self.name]:.4g} of the original"
        return f"{self.name} {values[self.name]:.4g}"


def parse_constraints(limits: Mapping[str, float | str] | None) -> tuple[Constraint, ...]:
    """Read constraints: absolute numbers, or percent of the fp32 artifact.

    Raises:
        InvalidInputError: If a name is unknown or a value is out of range.
        WrongTypeError: If a value is neither a number nor a percent string.

    Example:
        >>> parse_constraints({"latency_ms": "60%"})
        (Constraint(name='latency_ms', value=0.6, relative=True),)
    """
    if limits is None:
        return ()
    if not isinstance(limits, Mapping):
        raise WrongTypeError(
            explain(
                "'constraints'",
                expected="a mapping of names to limits",
                got=repr(limits),
                remedy="write {accuracy_drop: 0.01}",
            )
        )
    return tuple(_parse_constraint(name, value) for name, value in limits.items())


def _parse_constraint(name: str, value: float | str) -> Constraint:
    known = ("accuracy", "accuracy_drop", *known_costs())
    if name not in known:
        raise InvalidInputError(unknown_name("constraint", str(name), known))
    what = f"constraint '{name}'"
    relative = isinstance(value, str)
    if isinstance(value, str):
        number = _percent(what, value)
        if name in ("accuracy", "accuracy_drop"):
            raise InvalidInputError(
                explain(what, expected="a fraction", got=value, remedy="write 0.01 for one point")
            )
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongTypeError(
            explain(
                what,
                expected="a number or a percent string",
                got=repr(value),
                remedy="write 0.5 or '60%'",
            )
        )
    else:
        number = float(value)
    if name in ("accuracy", "accuracy_drop"):
        if not 0.0 <= number <= 1.0:
            raise InvalidInputError(
                explain(
                    what,
                    expected="a fraction in [0, 1]",
                    got=value,
                    remedy="write 0.01 for one point",
                )
            )
    elif not (math.isfinite(number) and number > 0.0):
        raise InvalidInputError(
            explain(what, expected="a positive limit", got=value, remedy="raise the limit")
        )
    return Constraint(name=name, value=number, relative=relative)


def _percent(what: str, text: str) -> float:
    try:
        if not text.endswith("%"):
            raise ValueError
        return float(text[:-1]) / 100.0
    except ValueError:
        raise InvalidInputError(
            explain(
                what, expected="a number or a percent string", got=repr(text), remedy="write '60%'"
            )
        ) from None


def cost_names(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> list[str]:
    """List the costs, not accuracies, that objectives and constraints speak of."""
    names = [objective.name for objective in objectives if objective.name != "accuracy"]
    return names + [c.name for c in constraints if not c.name.startswith("accuracy")]


def study_names(objectives: Sequence[Objective]) -> list[str]:
    """Say what the objectives of trials are called in a study, where they are predictions."""
    return [_PREDICTED.get(objective.name, objective.name) for objective in objectives]
