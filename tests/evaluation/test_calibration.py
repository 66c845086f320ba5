import pytest
import torch

import seasoned
from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.evaluation.calibration import compress_on, settle_on
from autocompress.evaluation.task import Task
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel


@pytest.fixture
def inputs() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 3, 16, 16)


def _compressed(inputs: torch.Tensor, *, ratio: float = 0.0) -> CompressedModel:
    torch.manual_seed(0)
    model, _ = seasoned.seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=seasoned.pruned(graph, ratio) if ratio else {},
        layers=seasoned.uniform(graph, 8),
    )
    return compress_model(model, graph, candidate, ((inputs[:2],), {}))


def _grids(model: CompressedModel) -> list[float]:
    return [quantiser.scale for quantiser in model.quantisers]


def test_the_example_inputs_set_the_grids_when_there_is_nothing_else(inputs) -> None:
    model, other = _compressed(inputs), _compressed(inputs)
    settle_on(model, ModelInputs.of(inputs))
    settle_on(other, ModelInputs.of(inputs), calibration=[inputs])
    assert _grids(model) == _grids(other)
    assert max(_grids(model)) < 1.0


def test_calibration_batches_come_before_the_examples(inputs) -> None:
    model, other = _compressed(inputs), _compressed(inputs)
    settle_on(model, ModelInputs.of(inputs))
    settle_on(other, ModelInputs.of(inputs), calibration=[(3 * inputs, torch.zeros(8))])
    assert _grids(model) != _grids(other)


def test_a_task_recalibrates_batch_norms_of_what_was_cut(inputs) -> None:
    model = _compressed(inputs, ratio=0.5)
    before = {n: b.clone() for n, b in model.named_buffers() if "running_mean" in n}
    batches = [(2 * inputs, torch.zeros(8, dtype=torch.long))]
    settle_on(model, ModelInputs.of(inputs), task=Task(train=batches, val=batches))
    after = dict(model.named_buffers())
    assert any(not torch.allclose(before[name], after[name]) for name in before)


def test_no_calibration_batch_is_refused(inputs) -> None:
    with pytest.raises(InvalidInputError, match="at least one batch"):
        settle_on(_compressed(inputs), ModelInputs.of(inputs), calibration=[])


def test_the_random_state_of_the_caller_is_left_alone_and_results_repeat(inputs) -> None:
    class Shuffled:
        def __iter__(self):
            order = torch.randperm(8)
            yield inputs[order] * torch.rand(()), torch.zeros(8, dtype=torch.long)

    task = Task(train=Shuffled(), val=Shuffled())
    models = [_compressed(inputs, ratio=0.5) for _ in range(2)]
    before = torch.get_rng_state()
    for model in models:
        settle_on(model, ModelInputs.of(inputs), task=task)
    assert torch.equal(torch.get_rng_state(), before)
    assert _grids(models[0]) == _grids(models[1])


def _cut(inputs: torch.Tensor, criterion: str, **data) -> list[tuple[int, ...]]:
    torch.manual_seed(0)
    model, _ = seasoned.seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(pruning_ratios=seasoned.pruned(graph, 0.5), criterion=criterion)
    examples = ModelInputs.of(inputs[:2])
    result = compress_on(model, graph, candidate, examples, **data)
    return [cut.removed for cut in result.record.cuts]


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_criteria_that_need_labels_refuse_without_a_task(inputs, criterion) -> None:
    for data in ({}, {"calibration": [inputs]}):
        with pytest.raises(InvalidInputError, match=f"'{criterion}'.*a task whose labels"):
            _cut(inputs, criterion, **data)
    batches = [(inputs, torch.arange(8) % 4), (2 * inputs, torch.arange(8) % 3)]
    task = Task(train=batches, val=batches)
    assert _cut(inputs, criterion, task=task) == _cut(inputs, criterion, task=task)
    assert _cut(inputs, criterion, task=task) != _cut(inputs, "l1", task=task)


@pytest.mark.parametrize("criterion", ["apoz", "thinet"])
def test_criteria_that_need_inputs_take_the_best_there_are(inputs, criterion) -> None:
    other = torch.randn(8, 3, 16, 16).abs()
    by_examples = _cut(inputs, criterion)
    by_calibration = _cut(inputs, criterion, calibration=iter([inputs[:2]]))
    by_task = _cut(
        inputs,
        criterion,
        task=Task(train=[(other, torch.arange(8) % 4)], val=[(other, torch.arange(8))]),
        calibration=[inputs],
    )
    unlabelled = Task(train=[(other,)], val=[(other, torch.arange(8))])
    assert by_examples == by_calibration
    assert by_examples != by_task
    assert _cut(inputs, criterion, task=unlabelled, calibration=[inputs]) == by_task
