from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller import finish
from autocompress.controller.finalists import Finalist
from autocompress.controller.finish import (
    FEWEST_FINALISTS,
    MOST_FINALISTS,
    TEACHERS_SHARE,
    _finalist,
    _worthwhile,
    finalist_images,
    limit_views,
    most_finalists,
    train_finalists,
)
from autocompress.controller.schedule import Schedule
from autocompress.core.budget import FINALIST_SHARE, Budget
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.events import Stop
from autocompress.core.recipe import Recipe
from autocompress.core.training import TrainingConfig
from autocompress.errors import ExportError, MismatchError
from autocompress.evaluation.answers import Answers


def _run(seconds_per_image: float, budget: Budget = Budget(minutes=60)) -> Any:  # noqa: B008
    return SimpleNamespace(
        schedule=Schedule(budget=budget, epoch_images=10_000, spent_before=0.0),
        evaluator=SimpleNamespace(seconds_per_image=seconds_per_image),
        setup=SimpleNamespace(epoch_images=10_000),
        seconds_per_member=5.0,
        usual_pace=1.0,
    )


def test_few_finalists_share_the_time_before_the_speed_of_training_is_known() -> None:
    assert _worthwhile(_run(0.0), 1.0, over=0) == FEWEST_FINALISTS


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


def test_candidates_that_train_quickly_leave_time_for_more_of_them() -> None:
    run = _run(0.02)
    assert _worthwhile(run, 1_020.0, over=0) == FEWEST_FINALISTS
    run.usual_pace = 0.5
    assert _worthwhile(run, 1_020.0, over=0) == 4


@pytest.mark.parametrize("seconds", [10.0, 9_000.0])
def test_as_many_as_the_budget_says(seconds: float) -> None:
    run = _run(0.01, Budget(minutes=60, finalists=2))
    assert _worthwhile(run, seconds, over=0) == most_finalists(run.schedule.budget) == 2
    assert _worthwhile(run, seconds, over=1) == 1


def test_a_finalist_in_the_middle_has_seen_the_images_of_half_of_them() -> None:
    run = _run(0.01, Budget(minutes=1_020.0 / 60 / 0.4))
    each = (1_020.0 / 4 - 5.0) / 0.01  # of four finalists
    assert finalist_images(run, 1.0) == pytest.approx(each * (1 + 2 + 3 + 4) / 4, abs=1)
    assert finalist_images(run, 0.5) == pytest.approx(2 * finalist_images(run, 1.0), abs=2)


def test_without_a_limit_of_time_a_finalist_sees_what_is_planned() -> None:
    run = _run(0.01, Budget(trials=5))
    assert finalist_images(run, 0.5) == run.schedule.full_images


@pytest.mark.parametrize(
    ("minutes", "views"),
    [(1.0, 1), (10.0, 3), (20.0, 6), (120.0, 10)],  # an epoch of answers takes 20 s
)
def test_the_teachers_take_a_part_of_the_finalists_time(minutes: float, views: int) -> None:
    run = _run(0.01, Budget(minutes=minutes))
    run.setup.training = TrainingConfig()
    run.ledger = _Ledger()
    run.evaluator.original_seconds, run.evaluator.answers = 0.001, Answers(0, None)
    run.evaluator.teachers = (None,)
    limit_views(run)
    assert run.evaluator.answers.views == views
    taken = views * 20.0
    assert views == 1 or taken <= TEACHERS_SHARE * FINALIST_SHARE * 60.0 * minutes
    run.evaluator.original_seconds, run.evaluator.answers = 1.0, Answers(0, None)
    limit_views(run)  # a process that resumes, on a busy host
    assert run.evaluator.answers.views == views


def test_what_the_recipe_says_of_views_is_kept() -> None:
    run = _run(0.01, Budget(minutes=1))
    run.setup.training = TrainingConfig(recipe=Recipe(views=7))
    run.evaluator.answers = Answers(0, 7)
    limit_views(run)
    assert run.evaluator.answers.views == 7


class _Ledger(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def record_final(self, slot: int, result: object) -> None:
        self[f"final {slot}"] = result


class _Study:
    """A run without limits whose trainings, members and messages are counted."""

    def __init__(self) -> None:
        self.ledger = _Ledger()
        self.kept: set[int] = set()
        self.schedule = Schedule(budget=Budget(trials=9), epoch_images=10, spent_before=0.0)
        self.evaluator = SimpleNamespace(
            fine_tune=self.fine_tune, is_trained=self.kept.__contains__
        )
        self.setup = SimpleNamespace(epoch_images=10)
        self.added_seconds = 0.0
        self.asked: list[tuple[int, bool]] = []
        self.stops_at = ""
        self.said: list[str] = []

    def fine_tune(
        self, _: Any, *, slot: int, images: int, inherit: bool, **__: Any
    ) -> tuple[None, int]:
        self.asked.append((images, inherit))
        self.kept.add(slot)
        return None, 1_000

    def write_member(self, *_: Any, **__: Any) -> Any:
        if self.stops_at == "write":
            raise KeyboardInterrupt
        return SimpleNamespace(measured={"val_accuracy": 0.5, "val_images": 10})

    def add_member(self, member: Any) -> Any:
        return member

    def watch(self, *_: str) -> None:
        return None

    def say(self, stage: str, message: str, **_: Any) -> None:
        self.said.append(message)
        if self.stops_at == message:
            raise Stop("the user pressed Ctrl-C")


def _waiting(slot: int) -> Finalist:
    evaluation = Evaluation(slot=slot, candidate=Candidate(), origin="tpe")
    return Finalist(evaluation=evaluation, predicted={}, share=1.0)


def test_a_finalist_that_is_trained_is_not_trained_again() -> None:
    run: Any = _Study()
    run.stops_at = "write"
    with pytest.raises(KeyboardInterrupt):
        _finalist(run, _waiting(7), [_waiting(7)])
    run.stops_at = ""
    _finalist(run, _waiting(7), [_waiting(7)])
    _finalist(run, _waiting(8), [_waiting(8)])
    full = run.schedule.full_images
    assert run.asked == [(full, True), (0, False), (full, True)]
    run.kept.clear()  # whoever deletes a checkpoint wants it trained anew
    _finalist(run, _waiting(7), [_waiting(7)])
    assert run.asked[-1] == (full, True)
    assert run.ledger["finalists"] == ["0007", "0008"]


@pytest.mark.parametrize(
    ("failures", "others"),
    [
        ([MismatchError("first")], True),
        ([MismatchError("first"), MismatchError("second")], True),
        ([MismatchError("first")], False),
        ([ExportError("cannot be written")], True),
    ],
    ids=["once", "twice", "no other images", "another error"],
)
def test_a_file_that_differs_by_chance_is_written_once_more_on_other_grids(
    failures: list[ExportError], others: bool
) -> None:
    run, calibrated, left = _Study(), list[object](), list(failures)

    def write_member(*_: Any, **__: Any) -> Any:
        if left:
            raise left.pop(0)
        return SimpleNamespace(measured={"val_accuracy": 0.5, "val_images": 10})

    run.write_member = write_member  # type: ignore[method-assign]
    run.evaluator.fine_tune = lambda *_, **__: ("model", 1_000)
    run.evaluator.calibrate_anew = lambda model: (calibrated.append(model), others)[1]
    study: Any = run
    if len(failures) == 1 and others and isinstance(failures[0], MismatchError):
        _finalist(study, _waiting(7), [_waiting(7)])
        assert run.ledger["finalists"] == ["0007"]
        said = ["finalist 7 was calibrated anew: first", "member 0007 is on disk"]
        assert run.said == said
    else:
        with pytest.raises(ExportError, match=str(failures[-1])):
            _finalist(study, _waiting(7), [_waiting(7)])
        assert "finalists" not in run.ledger
    assert calibrated == ["model"] * isinstance(failures[0], MismatchError)


def test_a_member_on_disk_is_done_whoever_stops_the_search_then() -> None:
    run: Any = _Study()
    run.stops_at = "member 0007 is on disk"
    with pytest.raises(Stop):
        _finalist(run, _waiting(7), [_waiting(7)])
    assert run.ledger["finalists"] == ["0007"]


def test_failures_are_kept_and_another_budget_has_further_finalists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Any = _Study()
    rooms: list[int] = []

    def choose(_: Any, __: Any, done: set[str], failed: set[int], earlier: int) -> list[Finalist]:
        over = len(done) - earlier + len(failed)
        rooms.append(2 - over)
        return [_waiting(len(done) + len(failed))] if over < 2 else []

    def finalist(_: Any, chosen: Finalist, __: Any) -> None:
        if chosen.evaluation.slot == 1:
            raise ValueError("no such operator")

    monkeypatch.setattr(finish, "_choose", choose)
    monkeypatch.setattr(finish, "_finalist", finalist)
    monkeypatch.setattr(finish, "refit_profile", lambda _, profile: profile)
    forecast: Any = SimpleNamespace(profile=None)
    train_finalists(run, forecast)
    assert run.ledger["finalist_failures"] == {"0001": "ValueError: no such operator"}
    assert rooms == [2, 1, 0]
    run.ledger["finalists"] = ["0000"]
    run.schedule = Schedule(budget=Budget(trials=20), epoch_images=10, spent_before=0.0)
    rooms.clear()
    train_finalists(run, forecast)
    assert rooms[0] == 2


def test_twenty_minutes_are_the_same_budget_however_they_are_written() -> None:
    run: Any = _Study()
    for minutes, done in ((20, 0), (20.0, 2), (30, 3)):
        run.schedule = Schedule(budget=Budget(minutes=minutes), epoch_images=10, spent_before=0.0)
        assert finish._trained_before(run, done) == (3 if minutes == 30 else 0)
