from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.objective import (
    COSTS,
    Constraint,
    Objective,
    parse_constraints,
    parse_objectives,
)
from autocompress.errors import InvalidInputError, WrongTypeError

BASELINE = {"accuracy": 0.9, "latency_ms": 2.0, "size_bytes": 1000.0}
fractions = st.floats(0.0, 1.0)
costs = st.floats(0.01, 100.0)


@given(low=fractions, high=fractions)
def test_more_accuracy_is_less_loss(low: float, high: float) -> None:
    objective = Objective(name="accuracy")
    if objective.loss({"accuracy": high}) < objective.loss({"accuracy": low}):
        assert high > low


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_is_its_own_loss(name: str) -> None:
    assert Objective(name=name).loss({name: 3.5}) == 3.5


def test_objectives_keep_their_order() -> None:
    parsed = parse_objectives(["size_bytes", "accuracy", "latency_ms"])
    assert [objective.name for objective in parsed] == ["size_bytes", "accuracy", "latency_ms"]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("accuracy",),
        ("latency_ms", "size_bytes"),
        ("accuracy", "macs", "macs"),
        ("accuracy", "x"),
    ],
)
def test_objectives_without_a_trade_off_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="objective"):
        parse_objectives(names)


@pytest.mark.parametrize("names", ["accuracy", None, 3, ["accuracy", 1]])
def test_objectives_of_another_type_are_refused(names: Any) -> None:
    with pytest.raises(WrongTypeError, match="'objectives': expected a list of names"):
        parse_objectives(names)


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("accuracy", 0.95, "accuracy 0.87"),
        ("accuracy_drop", 0.01, "accuracy_drop 0.03"),
        ("latency_ms", 0.5, "latency_ms 1.5"),
        ("latency_ms", "50%", "latency_ms 0.75 of the original"),
        ("size_bytes", "50%", ""),
    ],
)
def test_what_a_candidate_has_is_said_in_the_unit_of_the_limit(
    name: str, limit: float | str, words: str
) -> None:
    (constraint,) = parse_constraints({name: limit})
    assert constraint.describe_value({"accuracy": 0.87, "latency_ms": 1.5}, BASELINE) == words


def test_no_constraints_are_no_constraints() -> None:
    assert parse_constraints(None) == ()
    assert parse_constraints({}) == ()


def test_absolute_and_relative_limits() -> None:
    drop, relative, absolute = parse_constraints(
        {"accuracy_drop": 0.02, "latency_ms": "60%", "size_bytes": 300}
    )
    assert drop.limit(BASELINE) == pytest.approx(0.88)
    assert relative.limit(BASELINE) == pytest.approx(1.2)
    assert absolute.limit(BASELINE) == 300.0
    assert drop.describe() == "accuracy_drop <= 0.02"
    assert relative.describe() == "latency_ms <= 0.6 of the original"
    assert Constraint(name="accuracy", value=0.9).describe() == "accuracy >= 0.9"


@given(value=costs, limit=costs)
def test_a_cost_limit_is_met_exactly_up_to_its_value(value: float, limit: float) -> None:
    violation = Constraint(name="latency_ms", value=limit).violation(
        {"latency_ms": value}, BASELINE
    )
    if abs(value - limit) > 1e-9 * limit:
        assert (violation <= 0) == (value <= limit)
    else:
        assert violation == pytest.approx(0.0, abs=1e-6)


@given(accuracy=fractions, drop=fractions)
def test_an_accuracy_drop_counts_from_the_original(accuracy: float, drop: float) -> None:
    constraint = Constraint(name="accuracy_drop", value=drop)
    violation = constraint.violation({"accuracy": accuracy}, BASELINE)
    assert violation == pytest.approx(BASELINE["accuracy"] - drop - accuracy)


@pytest.mark.parametrize(
    "limits",
    [
        {"latency": 1.0},
        {"latency_ms": 0},
        {"latency_ms": -1.0},
        {"latency_ms": float("nan")},
        {"latency_ms": "60"},
        {"latency_ms": "nan%"},
        {"latency_ms": "%"},
        {"accuracy_drop": "1%"},
        {"accuracy_drop": 2},
        {"accuracy": 95},
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="constraint"):
        parse_constraints(limits)


@pytest.mark.parametrize(
    "limits", [{"latency_ms": None}, {"latency_ms": True}, [("latency_ms", 1)]]
)
def test_limits_of_another_type_are_refused(limits: Any) -> None:
    with pytest.raises(WrongTypeError, match="constraint"):
        parse_constraints(limits)
