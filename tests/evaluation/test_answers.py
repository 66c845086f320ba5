import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.recipe import Recipe
from autocompress.errors import AutocompressError
from autocompress.evaluation import answers as answers_module
from autocompress.evaluation.answers import Answers, fingerprint, own_epoch_seed
from autocompress.evaluation.compiling import Compiled
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.task import Task
from autocompress.evaluation.teaching import CO_STUDY, LABELS, Teaching
from autocompress.transform.compressed import CompressedModel
from blobs import batches, make_task, trained_model
from seasoned import compressed

BATCHES = 8
"""Batches of an epoch of `shuffled`."""


def shuffled() -> Task:
    points, labels = (torch.cat(part) for part in zip(*batches(BATCHES, 64, seed=0), strict=True))
    loader = DataLoader(TensorDataset(points, labels), batch_size=64, shuffle=True)
    return Task(train=loader, val=batches(1, 64, seed=1))


def student_of(teacher: nn.Module) -> CompressedModel:
    return compressed(teacher, batches(1, 64, seed=0)[0][0], Candidate())


def trained(answers: Answers | None, seed: int = 5, epochs: int = 4) -> dict[str, Tensor]:
    teacher = trained_model(make_task())
    student = student_of(teacher)
    config = FineTuneConfig(images=64 * BATCHES * epochs)
    fine_tune(student, teacher, shuffled(), DistillConfig(), config, seed=seed, answers=answers)
    return student.state_dict()


def test_a_teacher_is_asked_once_about_a_batch_that_comes_again() -> None:
    answers = Answers(seed=0, views=3)
    trained(answers)
    assert answers.found == BATCHES
    teacher = trained_model(make_task())
    config = FineTuneConfig(images=64 * BATCHES * 3)
    for seed, known in ((1, 0), (2, 3 * BATCHES)):
        before = answers.found
        options: dict[str, Any] = {"seed": seed, "answers": answers}
        fine_tune(student_of(teacher), teacher, shuffled(), DistillConfig(), config, **options)
        assert answers.found - before == known


def test_kept_answers_do_not_change_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    remembering = Answers(seed=0, views=2)
    kept = trained(remembering)
    assert remembering.found == 2 * BATCHES
    monkeypatch.setattr(answers_module, "KEPT_BYTES", 0)
    forgetful = Answers(seed=0, views=2)
    asked = trained(forgetful)
    assert forgetful.found == 0
    assert all(torch.equal(asked[name], tensor) for name, tensor in kept.items())


def test_without_views_every_epoch_is_new() -> None:
    answers = Answers(seed=0, views=0)
    endless = trained(answers)
    assert answers.found == 0
    assert all(torch.equal(endless[name], tensor) for name, tensor in trained(None).items())
    seeds = [answers.epoch_seed(9, epoch) for epoch in range(50)]
    assert seeds == [own_epoch_seed(9, epoch) for epoch in range(50)]
    assert len(set(seeds)) == 50


def test_trainings_share_the_epochs_and_begin_at_different_ones() -> None:
    answers = Answers(seed=4, views=10)
    runs = [[answers.epoch_seed(seed, epoch) for epoch in range(20)] for seed in range(10)]
    assert len({seed for run in runs for seed in run}) == 10
    assert len({run[0] for run in runs}) == 10
    assert all(run[:10] == run[10:] for run in runs)
    assert set(runs[0]).isdisjoint(Answers(5, 10).epoch_seed(0, epoch) for epoch in range(10))


@pytest.mark.parametrize(
    ("distill", "lesson", "moving"),
    [
        (DistillConfig(kd_weight=0.0), "both", False),
        (DistillConfig(), LABELS, False),
        (DistillConfig(), CO_STUDY, False),
        (DistillConfig(), "both", True),
        (DistillConfig(method="relation", feature_weight=1.0), "both", False),
    ],
)
def test_answers_are_kept_only_where_outputs_that_do_not_change_are_all(
    distill: DistillConfig, lesson: str, moving: bool
) -> None:
    task, answers = make_task(), Answers(0, 2)
    batch = next(iter(task.train))
    teacher = trained_model(task)
    with Teaching(
        student_of(teacher), [teacher], task, distill, lesson, batch, moving=moving, answers=answers
    ) as teaching:
        assert teaching.answers is None
        teaching.loss(batch, b"x"), teaching.loss(batch, b"x")
    assert answers.found == 0


def test_every_teacher_has_answers_of_its_own() -> None:
    answers, said = Answers(0, 2), [torch.ones(2), torch.zeros(2)]
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    for _ in range(2):
        assert torch.equal(answers.of(one, b"x", lambda: said[0]), said[0])
        assert torch.equal(answers.of(other, b"x", lambda: said[1]), said[1])
    assert answers.found == 2
    assert answers.kept_bytes == 16
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
    assert answers.kept_bytes == 8


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "KEPT_BYTES", 100)
    answers, teacher = Answers(0, 2), nn.Linear(1, 1)
    for _ in range(2):
        for name in (b"a", b"b", b"c"):
            answers.of(teacher, name, lambda: torch.zeros(12))
    assert answers.found == 2  # 48 bytes each
    assert answers.kept_bytes == 96


def test_views_whose_answers_do_not_fit_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "KEPT_BYTES", 100)
    assert Answers(0, 10, 10).views == 10
    assert Answers(0, 10, 11).views == 0
    assert Answers(0, None, 25).views == 4
    assert Answers(0, None, 101).views == 0
    assert Answers(0, None).views == 10


def test_what_is_kept_is_a_copy_without_a_graph() -> None:
    answers, teacher = Answers(0, 2), nn.Linear(3, 3)
    whole = teacher(torch.ones(4, 3))
    answers.of(teacher, b"x", lambda: whole[:, :1])
    with torch.no_grad():
        whole.fill_(7.0)
    found = answers.of(teacher, b"x", lambda: whole)
    assert not found.requires_grad
    assert found.untyped_storage().nbytes() == 16
    assert not bool((found == 7.0).any())


def test_teachers_are_made_ready_with_the_first_batch_whatever_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    task, answers = make_task(), Answers(0, 2)
    whole, rest = batches(1, 64, seed=2)[0], batches(1, 5, seed=3)[0]
    teacher = trained_model(task)
    answers.of(teacher, b"whole", lambda: task.run(teacher, whole))
    with Teaching(
        student_of(teacher), [teacher], task, DistillConfig(), compiled=True, answers=answers
    ) as teaching:
        teaching.loss(whole, b"whole")
        assert teaching._readable == ()  # nobody was asked
        teaching.loss(rest, b"rest")
        [reader] = teaching._readable
        assert isinstance(reader, Compiled)
        assert reader.batch_size == 64


def test_a_fingerprint_is_that_of_all_that_a_batch_holds() -> None:
    x, y = torch.randn(4, 3), torch.arange(4)
    base = {"x": x, "rest": [y, "name", None]}
    assert fingerprint(base) == fingerprint({"x": x.clone(), "rest": [y.clone(), "name", None]})
    assert fingerprint((x.t(), y)) == fingerprint((x.t().contiguous(), y))
    changed = x.clone()
    changed[3, 2] += 1e-6
    others = [
        {"x": changed, "rest": [y, "name", None]},
        {"z": x, "rest": [y, "name", None]},
        {"x": x.reshape(3, 4), "rest": [y, "name", None]},
        {"x": x, "rest": [y.int(), "name", None]},
        {"x": x, "rest": [y.flip(0), "name", None]},
        (x, y),
        x,
        x.bfloat16(),
        x > 0,
        torch.tensor(3.0),
        torch.tensor([1 + 2j]),
        torch.tensor([1 + 2j]).conj(),
        np.array(["2026-11-30"], dtype="datetime64[D]"),
        x[:0],
        {"x": x, "rest": [y, "another name", None]},
        {"x": x.numpy(), "rest": [y, "name", None]},
        {"x": changed.numpy(), "rest": [y, "name", None]},
        {"x": x, "rest": [y, "name", 3]},
        ["a", "b"],
        ["ab"],
    ]
    assert len({fingerprint(batch) for batch in (base, *others)}) == len(others) + 1


def test_batches_of_unknown_objects_are_never_taken_for_each_other() -> None:
    answers, teacher = Answers(0, 2), nn.Linear(1, 1)
    for held in (object(), np.array([None]), torch.eye(2).to_sparse()):
        batch = {"x": torch.ones(1), "held": held}
        assert fingerprint(batch) is None
        for said in (torch.ones(2), torch.zeros(2)):
            assert answers.of(teacher, fingerprint(batch), lambda said=said: said) is said
        assert answers.kept_bytes == 0
    assert answers.found == 0


@pytest.mark.parametrize("views", [-1, 2.5, True])
def test_wrong_numbers_of_views_are_refused(views: Any) -> None:
    with pytest.raises(AutocompressError, match="views"):
        Recipe(views=views)
