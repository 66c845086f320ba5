"""The schedule, against a clock that the test moves."""

import pytest

from autocompress.controller.schedule import Schedule
from autocompress.core.budget import Budget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _schedule(
    budget: Budget, *, before: float = 0.0, epoch: int = 50_000
) -> tuple[Schedule, Clock]:
    clock = Clock()
    return Schedule(budget=budget, epoch_images=epoch, spent_before=before, clock=clock), clock


def test_trials_end_when_their_number_is_reached() -> None:
    schedule, clock = _schedule(Budget(trials=3))
    clock.now = 1e6
    assert not schedule.trials_over(2)
    assert schedule.trials_over(3)
    assert schedule.seconds_left is None


def test_minutes_keep_two_fifths_for_finalists() -> None:
    schedule, clock = _schedule(Budget(minutes=10))
    clock.now = 359.0
    assert not schedule.trials_over(1000)
    clock.now = 361.0
    assert schedule.trials_over(0)
    assert schedule.seconds_left == pytest.approx(239.0)


def test_earlier_runs_count() -> None:
    schedule, _ = _schedule(Budget(minutes=10), before=595.0)
    assert schedule.seconds_left == pytest.approx(5.0)
    assert schedule.trials_over(0)


def test_short_trainings_have_a_ceiling() -> None:
    schedule, clock = _schedule(Budget(minutes=10))
    assert schedule.may_train(0.0)
    assert not schedule.may_train(220.0)
    clock.now = 335.0  # 25 s before the finalists' share; a short fine-tune trains for 21.6
    assert schedule.may_train(0.0)
    assert not schedule.may_train(0.0, each=30.0)
    without_limit, _ = _schedule(Budget(trials=5))
    assert without_limit.may_train(1e9)


def test_small_epochs_are_repeated() -> None:
    small, _ = _schedule(Budget(trials=1), epoch=1_000)
    large, _ = _schedule(Budget(trials=1), epoch=50_000)
    assert small.short_images == 6_000
    assert large.short_images == 25_000
    assert large.full_images == 200_000


def test_lengths_of_time_are_limited_where_minutes_are() -> None:
    limited = Schedule(budget=Budget(minutes=1.0), epoch_images=100, spent_before=0.0)
    assert limited.at_most(40.0, 0.05) == 3.0
    assert limited.at_most(2.0, 0.05) == 2.0
    free = Schedule(budget=Budget(trials=5), epoch_images=100, spent_before=0.0)
    assert free.at_most(40.0, 0.05) == 40.0
