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
    """

    trials: int | None = None
    minutes: float | None = None

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
        if self.trials is not None:
            if isinstance(self.trials, bool) or not isinstance(self.trials, int):
                raise WrongTypeError(
                    explain(
                        "budget 'trials'",
                        expected="an integer",
                        got=repr(self.trials),
                        remedy="write trials: 100",
                    )
                )
            if self.trials < 1:
                raise InvalidInputError(
                    explain(
                        "budget 'trials'",
                        expected=">= 1",
                        got=self.trials,
                        remedy="write trials: 100",
                    )
                )
        if self.minutes is not None:
            if isinstance(self.minutes, bool) or not isinstance(self.minutes, (int, float)):
                raise WrongTypeError(
                    explain(
                        "budget 'minutes'",
                        expected="a number",
                        got=repr(self.minutes),
                        remedy="write minutes: 30",
                    )
                )
            if not (math.isfinite(self.minutes) and self.minutes > 0):
                raise InvalidInputError(
                    explain(
                        "budget 'minutes'",
                        expected="a positive number",
                        got=self.minutes,
                        remedy="write minutes: 30",
                    )
                )
