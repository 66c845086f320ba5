from typing import Any

import pytest

from autocompress.core.budget import Budget
from autocompress.errors import InvalidInputError, WrongTypeError


def test_either_limit_is_enough() -> None:
    assert Budget(trials=3).minutes is None
    assert Budget(minutes=0.5).trials is None


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"trials": 0},
        {"trials": -1},
        {"trials": 1, "finalists": 0},
        {"minutes": 0},
        {"minutes": -2.0},
        {"minutes": float("nan")},
        {"minutes": float("inf")},
        {"trials": 1, "least_gain": 0.0},
        {"trials": 1, "least_gain": float("nan")},
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="budget"):
        Budget(**limits)


@pytest.mark.parametrize(
    "limits",
    [
        {"trials": 1.5},
        {"trials": True},
        {"trials": "9"},
        {"trials": 1, "finalists": 2.0},
        {"minutes": "9"},
        {"minutes": True},
        {"trials": 1, "least_gain": "1 %"},
    ],
)
def test_limits_of_another_type_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(WrongTypeError, match="budget"):
        Budget(**limits)
