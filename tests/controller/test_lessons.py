from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller import lessons
from autocompress.controller.lessons import (
    best_lessons,
    kind_of,
    learn_distillation,
    lesson_settings,
    taught_candidate,
)
from autocompress.controller.schedule import Schedule
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.training import TrainingConfig
from autocompress.errors import StorageError, TrainingError
from autocompress.space.preset import SearchSpace
from zoo import PlainNet


class Ledger:
    """Keeps values as the ledger of a study does."""

    def __init__(self, evaluations: list[Evaluation]) -> None:
        self.values: dict[str, Any] = {}
        self._evaluations = evaluations

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value

    def evaluations(self) -> list[Evaluation]:
        return self._evaluations


NARROW = Candidate(layers={"conv1": LayerConfig(weight_bits=3, activation_bits=8)})
PRUNED = Candidate(pruning_ratios={"conv1": 0.5})


class Evaluator:
    """Reaches most at a low temperature with few bits, and at a high one when pruned."""

    def __init__(self, seconds_per_image: float) -> None:
        self.seconds_per_image = seconds_per_image
        self.trained: list[tuple[str, DistillConfig]] = []
        self.diverges_above = 100.0
        self.failure: Exception = TrainingError("the loss is not finite")

    def train(self, candidate: Candidate, **_: Any) -> tuple[None, FidelityResult]:
        self.trained.append((kind_of(candidate), candidate.distill))
        if candidate.distill.temperature > self.diverges_above:
            raise self.failure
        slope = -1.0 if kind_of(candidate) == "low-bit" else 1.0
        accuracy = 0.5 + 0.01 * slope * candidate.distill.temperature
        accuracy += 0.001 * candidate.distill.kd_weight
        return None, FidelityResult(accuracy=accuracy, images=1, trained_images=1, seconds=1.0)

    def forget(self, slot: int) -> None:
        assert slot >= lessons.LESSON_SLOT


def _run(
    trained: int,
    space: dict[str, Any] | None = None,
    budget: Budget = Budget(trials=100),  # noqa: B008  frozen
    seconds_per_image: float = 0.0,
) -> Any:
    import torch

    result = FidelityResult(accuracy=0.5, images=1, trained_images=1, seconds=1.0)
    evaluations = [
        Evaluation(
            slot=slot,
            candidate=NARROW if slot % 2 else PRUNED,
            origin="tpe",
            fidelities={0: result, 1: result},
        )
        for slot in range(trained)
    ]
    bound = SearchSpace.load(space or {"name": "x"}).bind(
        PlainNet().eval(), torch.randn(1, 3, 16, 16)
    )
    said: list[str] = []
    return SimpleNamespace(
        setup=SimpleNamespace(space=bound, training=TrainingConfig()),
        ledger=Ledger(evaluations),
        schedule=Schedule(budget=budget, epoch_images=10, spent_before=0.0),
        evaluator=Evaluator(seconds_per_image),
        usual_pace=1.0,
        said=said,
        say=lambda stage, text: said.append(text),
        watch=lambda *_: None,
    )


FORECAST: Any = SimpleNamespace(
    values=lambda e: {"size_bytes": float(e.slot)}, violations=lambda _: {}
)


def test_each_kind_takes_the_distillation_that_reached_most() -> None:
    run = _run(60)
    learn_distillation(run, FORECAST)
    found = run.ledger.get("lessons")
    assert len(found) == 10  # five settings of two kinds; there is room for eleven
    assert {lesson["kind"] for lesson in found} == {"low-bit", "pruned"}
    low, high = (p.from_unit(u) for p in [run.setup.space.temperature] for u in lessons.LEVELS)
    assert taught_candidate(run, NARROW).distill.temperature == pytest.approx(low, abs=1e-5)
    assert taught_candidate(run, PRUNED).distill.temperature == pytest.approx(high, abs=1e-5)
    assert taught_candidate(run, Candidate()) == Candidate()
    assert any("low-bit finalists take" in text for text in run.said)
    before = len(run.evaluator.trained)
    learn_distillation(run, FORECAST)
    assert len(run.evaluator.trained) == before


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (TrainingError("the loss is not finite"), "the loss is not finite"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
    ],
)
def test_a_lesson_that_fails_fails_alone_and_others_decide(failure: Exception, told: str) -> None:
    run = _run(60)
    run.evaluator.failure = failure
    high = run.setup.space.temperature.from_unit(lessons.LEVELS[1])
    run.evaluator.diverges_above = 0.9 * high
    learn_distillation(run, FORECAST)
    failed = [x for x in run.ledger.get("lessons") if x["accuracy"] is None]
    assert [x["failure"] for x in failed] == 4 * [told]
    assert taught_candidate(run, PRUNED).distill.temperature < high
    assert len(run.evaluator.trained) == 10
    learn_distillation(run, FORECAST)
    assert len(run.evaluator.trained) == 10


def test_a_study_that_cannot_be_written_is_no_failure_of_a_lesson() -> None:
    run = _run(60)
    run.evaluator.diverges_above, run.evaluator.failure = 0.0, StorageError("the disk is full")
    with pytest.raises(StorageError):
        learn_distillation(run, FORECAST)


def test_representatives_stay_and_candidates_that_failed_are_none() -> None:
    run = _run(60)
    known = run.ledger.evaluations()
    run.ledger._evaluations = [replace(e, failed=e.slot < 10) for e in known]
    learn_distillation(run, FORECAST)
    kept = run.ledger.get(lessons.REPRESENTATIVES)
    assert list(kept) == ["low-bit", "pruned"]
    narrow = replace(NARROW, pruning_ratios={"conv1": 0.5})
    run.ledger._evaluations = [replace(known[0], candidate=narrow), *known]
    learn_distillation(run, FORECAST)
    assert run.ledger.get(lessons.REPRESENTATIVES) == kept


def test_fewer_kinds_are_compared_where_there_is_room_for_few_lessons() -> None:
    run = _run(17)  # room for three lessons, two of which teach something about one kind
    learn_distillation(run, FORECAST)
    assert [kind for kind, _ in run.evaluator.trained] == 3 * ["low-bit"]


@pytest.mark.parametrize("trained", [0, 3, 8])
def test_nothing_is_learned_of_too_little(trained: int) -> None:
    run = _run(trained)
    learn_distillation(run, FORECAST)
    assert run.evaluator.trained == []
    assert taught_candidate(run, NARROW) == NARROW


def test_lessons_take_their_share_of_the_trainings() -> None:
    run = _run(28)
    learn_distillation(run, FORECAST)
    assert len(run.evaluator.trained) == 5
    assert len(run.evaluator.trained) / (28 + 5) >= 0.15


@pytest.mark.parametrize(("seconds_per_image", "expected"), [(0.3, 10), (0.35, 0)])
def test_minutes_that_do_not_train_three_finalists_well_are_not_spent_on_lessons(
    seconds_per_image: float, expected: int
) -> None:
    budget = Budget(minutes=1.0)  # 24 seconds of it are the finalists'
    run = _run(60, budget=budget, seconds_per_image=seconds_per_image)
    learn_distillation(run, FORECAST)
    assert len(run.evaluator.trained) == expected
    run.evaluator.seconds_per_image = 0.0  # a process that resumes has not trained yet
    learn_distillation(run, FORECAST)
    assert len(run.evaluator.trained) == expected


def test_a_fixed_distillation_is_not_compared() -> None:
    fixed = {
        "distillation": {
            "temperature": {"low": 4.0, "high": 4.0},
            "kd_weight": {"low": 1.0, "high": 1.0},
        }
    }
    run = _run(60, fixed)
    assert lesson_settings(run.setup.space) == []
    learn_distillation(run, FORECAST)
    assert run.evaluator.trained == []


def test_one_lesson_alone_decides_nothing() -> None:
    lesson = {"kind": "pruned", "distill": {"temperature": 2.0}, "accuracy": 0.9}
    assert best_lessons([lesson]) == {}
    other = {"kind": "pruned", "distill": {"temperature": 5.0}, "accuracy": 0.8}
    assert best_lessons([lesson, other]) == {"pruned": DistillConfig(temperature=2.0)}
