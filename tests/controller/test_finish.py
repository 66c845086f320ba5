from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller.finish import (
    FEWEST_FINALISTS,
    FINALISTS,
    MOST_FINALISTS,
    _worthwhile,
    finalist_images,
    most_finalists,
)
from autocompress.controller.schedule import Schedule
from autocompress.core.budget import Budget


def _run(seconds_per_image: float, budget: Budget = Budget(minutes=60)) -> Any:  # noqa: B008
    return SimpleNamespace(
        schedule=Schedule(budget=budget, epoch_images=10_000, spent_before=0.0),
        evaluator=SimpleNamespace(seconds_per_image=seconds_per_image),
        setup=SimpleNamespace(epoch_images=10_000),
        seconds_per_member=5.0,
    )


def test_nothing_limits_the_finalists_before_the_speed_of_training_is_known() -> None:
    assert _worthwhile(_run(0.0), 1.0, over=0) == FINALISTS


@pytest.mark.parametrize(
    ("seconds", "over", "expected"),
    [
        (1_020.0, 0, 4),  # 250 s of training and 5 s to write
        (10.0, 0, FEWEST_FINALISTS),
        (10.0, 2, FEWEST_FINALISTS - 2),
        (10.0, 5, 0),
        (9_000.0, 0, MOST_FINALISTS),
        (9_000.0, 4, MOST_FINALISTS - 4),
    ],
)
def test_the_time_is_for_as_many_as_it_can_train_well(
    seconds: float, over: int, expected: int
) -> None:
    assert _worthwhile(_run(0.01), seconds, over) == expected


@pytest.mark.parametrize("seconds", [10.0, 9_000.0])
def test_as_many_as_the_budget_says(seconds: float) -> None:
    run = _run(0.01, Budget(minutes=60, finalists=2))
    assert _worthwhile(run, seconds, over=0) == most_finalists(run.schedule.budget) == 2
    assert _worthwhile(run, seconds, over=1) == 1


def test_a_finalist_in_the_middle_has_seen_the_images_of_half_of_them() -> None:
    run = _run(0.01, Budget(minutes=1_020.0 / 60 / 0.4))
    each = (1_020.0 / 4 - 5.0) / 0.01  # of four finalists
    assert finalist_images(run) == pytest.approx(each * (1 + 2 + 3 + 4) / 4, abs=1)


def test_without_a_limit_of_time_a_finalist_sees_what_is_planned() -> None:
    run = _run(0.01, Budget(trials=5))
    assert finalist_images(run) == run.schedule.full_images
