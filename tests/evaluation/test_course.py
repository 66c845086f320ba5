import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.recipe import Recipe
from autocompress.core.training import TrainingConfig
from autocompress.evaluation import course
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.finetune import fine_tune
from autocompress.evaluation.splits import make_splits
from autocompress.evaluation.stages import assistant_of, plan_stages
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from blobs import make_task, trained_model
from seasoned import pruned, seasoned, uniform


class KilledError(Exception):
    """The process has ended."""


def _evaluator(folder: Path, training: TrainingConfig) -> Evaluator:
    task = make_task()
    model = trained_model(task)
    splits = make_splits(task, seed=0)
    graph = trace(model, splits.val[0][0])
    return Evaluator(model, graph, task, splits, checkpoints=folder, seed=0, training=training)


def _candidate(evaluator: Evaluator) -> Candidate:
    graph = evaluator.graph
    return Candidate(pruning_ratios=pruned(graph, 0.6), layers=uniform(graph, 4, 4))


def _killed_at(stop: int | None, steps: list[float]) -> dict[str, Any]:
    """Arguments of a full training whose process ends after some steps, which are noted."""

    def step(share: float) -> None:
        time.sleep(0.002)
        steps.append(share)
        if len(steps) == stop:
            raise KilledError

    return {"slot": 0, "images": 1536, "fidelity": 2, "on_step": step}


COURSES = {
    "qkd": {"teach": "qkd"},
    "assistant": {"teacher": "assistant"},
    "self": {"teacher": "self"},
    "late": {"schedule": "late", "teach": "first"},
    "quantise last": {"quantise": "last", "teach": "last"},
    "gradual": {"schedule": "gradual", "stages": 2},
}


@pytest.mark.parametrize("name", COURSES)
def test_an_interrupted_course_ends_as_it_would_have(name: str, tmp_path: Path) -> None:
    training = TrainingConfig.from_mapping(COURSES[name] | {"recipe": {"checkpoint_seconds": 1e-3}})
    ends = []
    for folder, kills in (("a", ()), ("b", (13, 4))):
        for stop in (*kills, None):
            evaluator = _evaluator(tmp_path / folder, training)
            steps: list[float] = []
            arguments = _killed_at(stop, steps)
            if stop is None:
                model, result = evaluator.train(_candidate(evaluator), **arguments)
            else:
                with pytest.raises(KilledError):
                    evaluator.train(_candidate(evaluator), **arguments)
        ends.append((model.network.state_dict(), result.accuracy, len(steps)))
        assert not list((tmp_path / folder).glob("*.training"))
    (undisturbed, accuracy, whole), (resumed, again, last) = ends
    assert last < whole - 8
    assert accuracy == again
    for key, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.9}])
def test_an_interrupted_course_keeps_the_steps_of_a_relative(
    recipe: dict[str, float], tmp_path: Path
) -> None:
    """Steps of other bits come along from stage to stage, in their order."""
    training = TrainingConfig.from_mapping(
        {"teach": "last", "recipe": {"checkpoint_seconds": 1e-3, **recipe}}
    )
    ends = []
    for folder, kill in (("a", None), ("b", 18)):
        evaluator = _evaluator(tmp_path / folder, training)
        other = replace(_candidate(evaluator), layers=uniform(evaluator.graph, 3, 3))
        evaluator.train(other, slot=1, images=256)
        arguments = _killed_at(kill, [])
        if kill is not None:
            with pytest.raises(KilledError):
                evaluator.train(_candidate(evaluator), **arguments)
            evaluator.seconds_per_image = 0.0
        model, _ = evaluator.train(_candidate(evaluator), **arguments)
        assert evaluator.seconds_per_image > 0.0
        ends.append({**model.network.state_dict(), **model.steps})
    undisturbed, resumed = ends
    assert any(":3:" in name for name in undisturbed)
    assert undisturbed.keys() == resumed.keys()
    for key, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize(
    ("training", "stages"),
    [
        ({"teach": "qkd"}, [("labels", True), ("co-study", True), ("both", True)]),
        ({"teach": "last", "quantise": "last"}, [("labels", False), ("both", True)]),
        ({"quantise": "after"}, [("both", False)]),
        (
            {"schedule": "late", "teach": "first", "quantise": "last"},
            [("both", False), ("labels", True)],
        ),
    ],
)
def test_orders_are_stages(
    training: dict[str, object], stages: list[tuple[str, bool]], tmp_path: Path
) -> None:
    evaluator = _evaluator(tmp_path, TrainingConfig())
    planned = plan_stages(
        _candidate(evaluator), TrainingConfig.from_mapping(training), evaluator.graph
    )
    assert [(stage.lesson, stage.quantised) for stage in planned] == stages
    assert planned[0].begins == 0.0
    assert [stage.begins for stage in planned[1:]] == [stage.ends for stage in planned[:-1]]
    assert planned[-1].ends == 1.0
    if training.get("schedule") == "late":
        assert not planned[0].candidate.pruning_ratios


def test_an_assistant_is_halfway_and_taught_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = _evaluator(tmp_path, TrainingConfig(teacher="assistant"))
    candidate = _candidate(evaluator)
    half = assistant_of(candidate, evaluator.graph)
    assert half.pruning_ratios["fc1"] == pytest.approx(0.3, abs=0.04)
    assert set(half.weight_bits().values()) == {8}
    noted = []

    def noting(student, teacher, *rest, **options):  # type: ignore[no-untyped-def]
        noted.append((student.record.candidate, teacher))
        return fine_tune(student, teacher, *rest, **options)

    monkeypatch.setattr(course, "fine_tune", noting)
    _, result = evaluator.train(candidate, slot=0, images=768, fidelity=2)
    assert [found.pruning_ratios for found, _ in noted] == [
        half.pruning_ratios,
        evaluator.compress(candidate).record.candidate.pruning_ratios,
    ]
    assert noted[0][1] is evaluator.model
    assert noted[1][1].record.candidate == noted[0][0]
    assert result.trained_images == 512
    evaluator.train(candidate, slot=1, images=256, fidelity=2)
    assert len(noted) == 3


def test_the_original_is_not_changed_by_co_study(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path, TrainingConfig(teach="qkd", recipe=Recipe(learning_rate=0.1)))
    before = {name: t.clone() for name, t in evaluator.model.state_dict().items()}
    evaluator.train(_candidate(evaluator), slot=0, images=768, fidelity=2)
    assert all(torch.equal(t, before[name]) for name, t in evaluator.model.state_dict().items())


@pytest.mark.parametrize("teacher", ["assistant", "self"])
@pytest.mark.parametrize("method", ["features", "attention", "relation"])
def test_compressed_teachers_show_their_features(teacher: str, method: str, tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet", 16)
    batches = [(inputs, torch.arange(16) % 10)]
    task = Task(train=batches, val=batches, test=batches)
    graph = trace(model, inputs)
    evaluator = Evaluator(
        model,
        graph,
        task,
        make_splits(task, seed=0),
        checkpoints=tmp_path,
        seed=0,
        training=TrainingConfig(teacher=teacher),
    )
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.5),
        layers=uniform(graph, 4, 4),
        distill=DistillConfig(method=method, feature_weight=1.0),
    )
    _, result = evaluator.train(candidate, slot=0, images=48, fidelity=2)
    assert result.trained_images == (32 if teacher == "assistant" else 48)


def test_floating_point_comes_before_the_last_half_whatever_is_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = _evaluator(tmp_path, TrainingConfig(quantise="last"))
    evaluator.train(_candidate(evaluator), slot=0, images=128)
    found = []

    def noting(student, *rest, on_step, **options):  # type: ignore[no-untyped-def]
        plain: set[bool] = set()
        seen = fine_tune(student, *rest, on_step=lambda _: plain.add(student.is_plain), **options)
        found.append((plain, len(student.steps)))
        return seen

    monkeypatch.setattr(course, "fine_tune", noting)
    model, _ = evaluator.train(_candidate(evaluator), slot=0, images=256, fidelity=2)
    assert found == [({True}, 0), ({False}, len(model.steps))]
    assert model.calibrated
    assert any(key.startswith("tensor:") for key in model.steps)
