from collections import UserDict, namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.evaluation.outputs import CLASSES, VALUES
from autocompress.evaluation.task import (
    Task,
    has_targets,
    inputs_of,
    targets_of,
    warn_of_guessing,
)

X, Y = torch.linspace(-1, 1, 18).reshape(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])


def _task(**options: Any) -> Task:
    return Task(train=[(X, Y)], val=[(X, Y)], **options)


def test_a_tuple_batch_is_inputs_then_targets() -> None:
    model = nn.Bilinear(3, 3, 4)
    outputs = _task().run(model, (X, X + 1, Y))
    torch.testing.assert_close(outputs, model(X, X + 1))
    assert targets_of((X, X, Y)) is Y
    assert targets_of([X, Y]) is Y


@pytest.mark.parametrize("key", ["labels", "label", "targets", "target"])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_a_mapping_gives_arguments_by_name(key: str, kind: type) -> None:
    model = nn.Bilinear(3, 3, 4)
    batch = kind({"input2": X + 1, key: Y, "input1": X})
    torch.testing.assert_close(_task().run(model, batch), model(X, X + 1))
    assert targets_of(batch) is Y
    assert set(inputs_of(batch)[1]) == {"input1", "input2"}


def test_logits_are_unpacked() -> None:
    named = namedtuple("Named", ["hidden", "logits"])
    for wrap in (
        lambda logits: logits,
        lambda logits: {"loss": None, "logits": logits},
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: named(None, logits),
    ):
        outputs = _task(forward=lambda _, batch, wrap=wrap: wrap(batch[0])).run(nn.ReLU(), (X, Y))
        assert outputs is X
    with pytest.raises(WrongTypeError, match="got tuple; pass forward="):
        _task(forward=lambda _, batch: (batch[0], None)).run(nn.ReLU(), (X, Y))


def test_the_loss_is_cross_entropy_in_full_precision() -> None:
    outputs = torch.randn(6, 3)
    expected = -outputs.log_softmax(1)[range(6), Y].mean()
    torch.testing.assert_close(_task().loss(outputs, (X, Y)), expected)
    assert _task().loss(outputs.bfloat16(), (X, Y)).dtype == torch.float32
    custom = _task(loss=functional.l1_loss)
    torch.testing.assert_close(custom.loss(X + 2, (X, X)), torch.tensor(2.0))


def test_top1_counts_what_is_right() -> None:
    outputs = torch.eye(3)[[0, 1, 2, 1, 1, 0]]
    assert _task().score(outputs, (X, Y)) == (4.0, 6)


@pytest.mark.parametrize(
    "metric",
    [
        lambda outputs, targets: outputs.argmax(1) == targets,
        lambda outputs, targets: (outputs.argmax(1) == targets).float().mean(),
        lambda outputs, targets: float((outputs.argmax(1) == targets).float().mean()),
    ],
    ids=["per example", "mean", "number"],
)
def test_a_metric_may_return_scores_or_their_mean(metric: Any) -> None:
    total, count = _task(metric=metric).score(torch.eye(3)[[0, 1, 2, 1, 1, 0]], (X, Y))
    assert count == 6
    assert total == pytest.approx(4.0)


def test_the_commonest_class_tells_what_guessing_reaches() -> None:
    batches = [(X, torch.tensor([0, 1, 1, 1, 2, 2])), {"x": X[:2], "labels": torch.tensor([1, 0])}]
    assert _task().commonest(batches) == 0.5
    assert _task(metric=lambda outputs, targets: outputs == targets).commonest(batches) is None


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.float32, torch.bool])
def test_labels_of_any_type_have_a_commonest_class(kind: torch.dtype) -> None:
    batch = (X, torch.tensor([0, 1, 1, 1, 0, 1]).to(kind))
    assert _task().commonest([batch]) == pytest.approx(4 / 6)


def test_only_an_accuracy_like_guessing_is_warned_of() -> None:
    assert warn_of_guessing(0.1, 0.1, 100).startswith("no more than")
    assert warn_of_guessing(0.155, 0.1, 100).startswith("hardly more than")  # 6 points are noise
    assert not warn_of_guessing(0.165, 0.1, 100)
    assert not warn_of_guessing(0.155, 0.1, 1000)
    assert not warn_of_guessing(0.9, 1.0, 100)  # the one class of unshuffled examples


@pytest.mark.parametrize("value", [87.5, -0.1, float("nan")])
def test_a_metric_outside_zero_to_one_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match=r"'metric': expected scores in \[0, 1\]"):
        _task(metric=lambda *_: value).score(X, (X, Y))


def test_a_metric_with_more_scores_than_examples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"one score for each of 6 .*shape \[6, 2\]"):
        _task(metric=lambda *_: torch.ones(6, 2)).score(torch.zeros(6, 3), (X, Y))


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="return the mean"):
        _task(loss=lambda outputs, _: outputs.sum(1)).loss(X, (X, Y))
    with pytest.raises(InvalidInputError, match="scalar tensor"):
        _task(loss=lambda *_: 1.0).loss(X, (X, Y))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0, 0], [0, -1, 0, 0, 0, 0]])
def test_labels_outside_the_classes_are_refused(labels: list[int]) -> None:
    for measure in (_task().loss, _task().score):
        with pytest.raises(InvalidInputError, match=r"class indices in \[0, 3\)"):
            measure(torch.zeros(6, 3), (X, torch.tensor(labels)))


@pytest.mark.parametrize("targets", [Y[:5], torch.zeros(6, 3), "labels"])
def test_targets_that_are_no_class_indices_are_refused(targets: Any) -> None:
    with pytest.raises(InvalidInputError, match="one class index for each of 6 outputs"):
        _task().score(torch.zeros(6, 3), (X, targets))


def test_batches_without_targets_do_not_decide_what_outputs_are() -> None:
    task = _task(loss=functional.mse_loss, metric=lambda outputs, targets: 1.0)
    outputs = torch.zeros(6, 3)
    assert task.form(outputs, (X,)).kind == CLASSES, "as far as it can be told"
    assert task.form(outputs, (X, 100.0 * X)).kind == VALUES
    assert task.form(outputs, (X,)).kind == VALUES


def test_loaders_must_be_iterable_again_and_again() -> None:
    def generate() -> Iterator[Any]:
        yield X, Y

    for loader, got in ((generate(), "generator"), (iter([(X, Y)]), "list_iterator"), (3, "int")):
        for split in ("train", "val", "test"):
            loaders = {"train": [(X, Y)], "val": [(X, Y)], split: loader}
            with pytest.raises(WrongTypeError, match=f"task '{split}'.*{got}"):
                Task(**loaders)


def test_making_a_task_reads_nothing_and_draws_nothing() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True, num_workers=1)
    state = torch.get_rng_state()
    task = Task(train=loader, val=loader, test=loader)
    assert task.train is loader
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'top1' or a callable, got 'top5'"):
        _task(metric="top5")


def test_batches_of_another_form_are_refused() -> None:
    for batch in ((), 3):
        with pytest.raises(WrongTypeError, match="batch: expected"):
            inputs_of(batch)
    with pytest.raises(InvalidInputError, match=r"one of the keys labels.*got x, y"):
        targets_of({"x": X, "y": Y})


def test_arguments_are_what_the_model_is_called_with() -> None:
    model = nn.Bilinear(3, 3, 4)
    args, kwargs = _task().arguments(model, (X, 2 * X, Y))
    assert args[0] is X
    assert (len(args), kwargs) == (2, {})
    task = _task(forward=lambda model, batch: model(batch["left"], input2=batch["right"]))
    args, kwargs = task.arguments(model, {"left": X, "right": X + 1, "labels": Y})
    assert args[0] is X
    torch.testing.assert_close(kwargs["input2"], X + 1)
    assert not model._forward_pre_hooks


def test_a_forward_that_fails_is_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidInputError, match=r"'forward': .* got KeyError: 'image'; write"):
        _task(forward=lambda m, batch: m(batch["image"])).arguments(nn.ReLU(), {"pixels": X})


def test_a_forward_that_does_not_call_the_model_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a call of the model"):
        _task(forward=lambda _, batch: batch[0]).arguments(nn.ReLU(), (X, Y))


@pytest.mark.parametrize("batch", [X, (X,), [X], {"x": X}])
def test_batches_without_targets_have_inputs_alone(batch: object) -> None:
    args, kwargs = inputs_of(batch)
    assert [*args, *kwargs.values()][0] is X
    assert not has_targets(batch)
    with pytest.raises(InvalidInputError, match="targets"):
        targets_of(batch)


def test_one_mapping_of_inputs_beside_targets_is_given_by_name() -> None:
    inputs, labels = {"input_ids": torch.zeros(3, 4)}, torch.zeros(3)
    args, kwargs = inputs_of((inputs, labels))
    assert not args
    assert kwargs == inputs
    assert targets_of((inputs, labels)) is labels


def test_a_task_shows_its_batches_where_they_can_be_counted() -> None:
    assert repr(Task([1, 2], [3])) == "Task(train=2 batches, val=1 batch, test=None)"

    class Endless:
        def __iter__(self) -> Iterator[int]:
            return iter(())

    assert repr(Task(Endless(), [3], [4])).startswith("Task(train=Endless, val=1 batch")
