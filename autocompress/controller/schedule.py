"""How the budget is spent: trials, short fine-tunes, finalists."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from autocompress.core.budget import FINALIST_SHARE, Budget

SHORT_EPOCHS, SHORT_IMAGES = 0.5, 6_000
"""Fidelity 1: half an epoch, or this many images if that is more."""

FULL_EPOCHS, FULL_IMAGES = 4.0, 30_000
"""Fidelity 2 where only trials are budgeted: epochs, or images if that is more."""

FEWEST_FINALISTS = 3
"""Finalists that are trained however little time there is for each."""

WORTHWHILE_EPOCHS = 2.5
"""Training of one finalist, in epochs, below which fewer finalists are better."""

SHORT_SHARE = 0.06
"""Share of the minutes for trials that one short fine-tune may take."""

TRAINING_SHARE = 0.6
"""Share of the minutes for trials that all short fine-tunes may take."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The plan of one run, from the budget and the size of an epoch.

    Attributes:
        budget: The user's budget.
        epoch_images: Training images of one epoch.
        spent_before: Seconds that earlier runs of the study took.
        clock: Returns seconds.
        started: The clock when this run began.
        short_epochs: Length of fidelity 1; None for `SHORT_EPOCHS`, or `SHORT_IMAGES`.
        full_epochs: Length of fidelity 2 where only trials are budgeted; None likewise.
    """

    budget: Budget
    epoch_images: int
    spent_before: float
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0
    short_epochs: float | None = None
    full_epochs: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds spent on the study, earlier runs included."""
        return self.spent_before + self.clock() - self.started

    @property
    def total_seconds(self) -> float | None:
        """The budget in seconds; None without a limit."""
        return None if self.budget.minutes is None else 60.0 * self.budget.minutes

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the budget is spent, at least 0; None without a limit."""
        return None if self.total_seconds is None else max(0.0, self.total_seconds - self.elapsed)

    def at_most(self, seconds: float, share: float) -> float:
        """Limit seconds to a share of the budget, [0, 1], where that is in minutes."""
        return seconds if self.total_seconds is None else min(seconds, share * self.total_seconds)

    @property
    def trial_seconds_left(self) -> float | None:
        """Seconds until the finalists' share begins; None without a limit."""
        if self.total_seconds is None:
            return None
        return (1.0 - FINALIST_SHARE) * self.total_seconds - self.elapsed

    def trials_over(self, finished: int) -> bool:
        """Tell whether no further trial may begin."""
        if self.budget.trials is not None and finished >= self.budget.trials:
            return True
        return self.trial_seconds_left is not None and self.trial_seconds_left <= 0.0

    @property
    def short_images(self) -> int:
        """Training images of fidelity 1."""
        if self.short_epochs is not None:
            return max(1, int(self.short_epochs * self.epoch_images))
        return max(int(SHORT_EPOCHS * self.epoch_images), SHORT_IMAGES)

    @property
    def short_seconds(self) -> float | None:
        """Wall time of one fidelity-1 training; None without a limit."""
        if self.total_seconds is None:
            return None
        return SHORT_SHARE * (1.0 - FINALIST_SHARE) * self.total_seconds

    def may_train(self, trained_seconds: float, each: float = 0.0) -> bool:
        """Tell whether another short fine-tune fits.

        Args:
            trained_seconds: Seconds that short fine-tunes have taken so far.
            each: What the longest of them took, with what follows the training.
        """
        if self.total_seconds is None or self.short_seconds is None:
            return True
        allowed = TRAINING_SHARE * (1.0 - FINALIST_SHARE) * self.total_seconds
        left = self.trial_seconds_left
        needed = max(each, self.short_seconds)
        return trained_seconds < allowed and (left is None or left > needed)

    @property
    def worthwhile_images(self) -> float:
        """Training images of one finalist below which fewer finalists are better."""
        return WORTHWHILE_EPOCHS * self.epoch_images

    @property
    def full_images(self) -> int:
        """Training images of one finalist where only trials are budgeted."""
        if self.full_epochs is not None:
            return max(1, int(self.full_epochs * self.epoch_images))
        return max(int(FULL_EPOCHS * self.epoch_images), FULL_IMAGES)
