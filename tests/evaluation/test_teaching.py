from dataclasses import replace

import pytest
import torch

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.errors import InvalidInputError
from autocompress.evaluation.distillation import (
    attention_loss,
    distillation_loss,
    relation_loss,
)
from autocompress.evaluation.features import aligned
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.task import Task
from autocompress.evaluation.teaching import CO_STUDY, LABELS, Teaching
from autocompress.graph.tracing import trace
from autocompress.transform.compressed import CompressedModel
from blobs import make_task, trained_model
from seasoned import compressed, pruned, seasoned


def _pair() -> tuple[Task, torch.nn.Module, CompressedModel]:
    """Return a task of images, a teacher and a pruned student of it."""
    teacher, inputs = seasoned("ResidualNet", 12)
    graph = trace(teacher, inputs)
    task = Task(train=[(inputs, torch.arange(12) % 10)], val=[(inputs, torch.arange(12) % 10)])
    candidate = Candidate(pruning_ratios=pruned(graph, 0.5))
    return task, teacher, compressed(teacher, inputs, candidate)


def test_labels_alone_are_the_loss_of_the_task() -> None:
    task, teacher, student = _pair()
    batch = task.train[0]  # type: ignore[index]
    with Teaching(student, [teacher], task, DistillConfig(), LABELS) as teaching:
        assert float(teaching.loss(batch).detach()) == pytest.approx(
            float(task.loss(task.run(student, batch), batch).detach())
        )


@pytest.mark.parametrize("method", ["attention", "relation"])
def test_the_feature_term_adds_to_the_loss(method: str) -> None:
    task, teacher, student = _pair()
    batch = task.train[0]  # type: ignore[index]
    plain = DistillConfig(kd_weight=0.5)
    full = replace(plain, method=method, feature_weight=3.0)
    with Teaching(student, [teacher], task, full, example=batch) as teaching:
        value = float(teaching.loss(batch).detach())
        assert len(teaching.points) > 1
        features = [
            aligned(*(tap.features[name] for tap in teaching._taps), channels_first=first)
            for name, first in teaching.points.items()
        ]
    if method == "attention":
        expected = sum(float(attention_loss(*pair).detach()) for pair in features)
    else:
        one, other = features[-1]
        expected = float(relation_loss(one.mean(1), other.mean(1)).detach())
    with Teaching(student, [teacher], task, plain) as teaching:
        assert value == pytest.approx(
            float(teaching.loss(batch).detach()) + 3.0 * expected, rel=1e-4
        )
    assert not any(module._forward_hooks for module in student.modules())


@pytest.mark.parametrize("method", ["features", "attention", "relation"])
def test_a_compressed_teacher_shows_the_features_of_its_network(method: str) -> None:
    task, teacher, student = _pair()
    batch = task.train[0]  # type: ignore[index]
    distill = DistillConfig(method=method, feature_weight=1.0)
    wrapped = compressed(teacher, batch[0], Candidate())
    found = []
    for given in (teacher, wrapped):
        with Teaching(student, [given], task, distill, example=batch) as teaching:
            torch.manual_seed(0)
            for regressor in teaching.regressors.values():
                regressor.reset_parameters()
            found.append((teaching.points, float(teaching.loss(batch).detach())))
    assert found[0] == found[1]
    assert not any(module._forward_hooks for module in wrapped.modules())


def test_regressors_learn_to_map_features_to_the_teacher() -> None:
    task, teacher, student = _pair()
    batch = task.train[0]  # type: ignore[index]
    distill = DistillConfig(kd_weight=1.0, method="features", feature_weight=1.0)
    with Teaching(student, [teacher], task, distill, example=batch) as teaching:
        assert {key.replace("/", ".") for key in teaching.regressors} == set(teaching.points)
        optimiser = torch.optim.Adam(teaching.regressors.parameters(), lr=0.05)
        losses = []
        for _ in range(20):
            optimiser.zero_grad()
            loss = teaching.loss(batch)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_an_uncut_student_begins_without_a_hint_loss() -> None:
    task, teacher, _ = _pair()
    batch = task.train[0]  # type: ignore[index]
    student = compressed(teacher, batch[0], Candidate())
    distill = DistillConfig(kd_weight=1.0, method="features", feature_weight=1.0)
    with Teaching(student, [teacher], task, distill, example=batch) as teaching:
        assert float(teaching.loss(batch).detach()) == pytest.approx(0.0, abs=1e-5)


def test_batches_need_no_targets_where_labels_have_no_weight() -> None:
    task, teacher, student = _pair()
    batch = {"x": task.train[0][0]}  # type: ignore[index]
    with Teaching(student, [teacher], task, DistillConfig(kd_weight=1.0)) as teaching:
        assert float(teaching.loss(batch).detach()) > 0.0
    with (
        Teaching(student, [teacher], task, DistillConfig(kd_weight=0.9)) as teaching,
        pytest.raises(InvalidInputError, match="targets"),
    ):
        teaching.loss(batch)


def test_in_co_study_both_learn_from_each_other() -> None:
    task, teacher, student = _pair()
    batch = task.train[0]  # type: ignore[index]
    distill = DistillConfig(kd_weight=1.0, temperature=2.0)
    teacher.requires_grad_(True)
    with Teaching(student, [teacher], task, distill, CO_STUDY) as teaching:
        loss = teaching.loss(batch)
    outputs, taught = task.run(student, batch), task.run(teacher, batch)
    expected = distillation_loss(outputs, taught, 2.0) + distillation_loss(taught, outputs, 2.0)
    assert float(loss.detach()) == pytest.approx(
        float((expected + task.loss(taught, batch)).detach())
    )
    loss.backward()
    assert all(p.grad is not None for p in teacher.parameters())
    gradient = torch.autograd.grad(distillation_loss(outputs, taught.detach(), 2.0), outputs)[0]
    student.zero_grad()
    outputs.backward(gradient)
    for parameter in student.network.parameters():
        assert parameter.grad is not None


def test_attention_needs_positions() -> None:
    task = make_task()
    teacher = trained_model(task)
    batch = task.train[0]  # type: ignore[index]
    student = compressed(teacher, batch[0], Candidate())
    distill = DistillConfig(method="attention", feature_weight=1.0)
    with pytest.raises(InvalidInputError, match="distil from logits"):
        Teaching(student, [teacher], task, distill, example=batch)


@pytest.mark.parametrize("method", ["features", "relation"])
def test_every_method_trains_a_student(method: str) -> None:
    task = make_task()
    teacher = trained_model(task)
    inputs = torch.cat([x for x, _ in task.train])
    candidate = Candidate(pruning_ratios=pruned(trace(teacher, inputs), 0.7))
    distill = DistillConfig(method=method, feature_weight=0.5)
    runs = []
    for weight in (0.0, 0.5):
        student = compressed(teacher, inputs, candidate)
        fine_tune(
            student,
            teacher,
            task,
            replace(distill, feature_weight=weight),
            FineTuneConfig(images=256),
            seed=0,
        )
        runs.append(student.network.state_dict())
    assert any(not torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())


def test_two_teachers_teach_another_student_than_one() -> None:
    task = make_task()
    first, second = trained_model(task), trained_model(task, seed=1)
    inputs = torch.cat([x for x, _ in task.train])
    runs = []
    for others in ((), (second,)):
        student = compressed(first, inputs, Candidate(pruning_ratios={"fc1": 0.5}))
        fine_tune(
            student,
            first,
            task,
            DistillConfig(kd_weight=1.0),
            FineTuneConfig(images=256),
            seed=0,
            others=others,
        )
        runs.append(student.network.state_dict())
    assert any(not torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())
