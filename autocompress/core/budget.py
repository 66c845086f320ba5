"""What a search may spend, in trials and in minutes."""

import math
from dataclasses import dataclass

from autocompress.errors import InvalidInputError, WrongTypeError, explain

FINALIST_SHARE = 0.4
"""Share of the minutes that finalists are promised (fine-tune, export, measure)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Totals for a study, resumed runs included.

    Attributes:
        trials: Candidates that the study may hold, >= 1; None for no limit.
        minutes: Wall time, profiling and finalists included; None for no limit.
        least_gain: Growth of the hypervolume, as a fraction of it, that the
            trials to come must promise; else no more are made, and the
            finalists follow. None uses the whole budget.
        finalists: Candidates that are trained fully at the end, at most, >= 1; fewer are
            trained for longer. None lets the time decide. A study that goes on with
            another budget trains as many again.
    """

    trials: int | None = None
    minutes: float | None = None
    least_gain: float | None = None
    finalists: int | None = None

    def __post_init__(self) -> None:
        if self.trials is None and self.minutes is None:
            raise InvalidInputError(
                explain(
                    "'budget'",
                    expected="trials, minutes or both",
                    got="neither",
                    remedy="write Budget(trials=100, minutes=30)",
                )
            )
        _check_count("trials", self.trials, "write trials: 100")
        _check_count("finalists", self.finalists, "write finalists: 4")
        _check_number("minutes", self.minutes, "write minutes: 30")
        _check_number("least_gain", self.least_gain, "write least_gain: 0.01 for one percent")


def _check_count(name: str, value: object, remedy: str) -> None:
    """Refuse what is neither None nor an integer of at least 1."""
    if value is None:
        return
    what = f"budget '{name}'"
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongTypeError(explain(what, expected="an integer", got=repr(value), remedy=remedy))
    if value < 1:
        raise InvalidInputError(explain(what, expected=">= 1", got=value, remedy=remedy))


def _check_number(name: str, value: object, remedy: str) -> None:
    """Refuse what is neither None nor a positive number."""
    if value is None:
        return
    what = f"budget '{name}'"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongTypeError(explain(what, expected="a number", got=repr(value), remedy=remedy))
    if not (math.isfinite(value) and value > 0):
        raise InvalidInputError(
            explain(what, expected="a positive number", got=value, remedy=remedy)
        )
