import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.evaluation.outputs import OutputForm
from autocompress.evaluation.precision import arithmetic, bfloat16_is_fast
from autocompress.evaluation.proxy import (
    predictions,
    recalibrate_batch_norms,
    score,
    settle,
)
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from seasoned import compressed, pruned, seasoned, uniform

Batch = tuple[torch.Tensor, torch.Tensor]


def _labelled(*inputs: torch.Tensor) -> list[Batch]:
    return [(x, torch.zeros(len(x), dtype=torch.long)) for x in inputs]


def _task(batches: list[Batch]) -> Task:
    return Task(train=batches, val=batches)


def test_recalibrated_statistics_are_averages_over_the_batches() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.2)
    model = nn.Sequential(norm, nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2)).train()
    norm.running_mean.fill_(100.0)
    norm.num_batches_tracked.fill_(7)
    batches = _labelled(*(torch.randn(n, 3, 4, 4) * n + n for n in (4, 3, 6)))
    weights = norm.weight.detach().clone()
    few = _labelled(torch.full((2, 3, 4, 4), 1e3))  # counts for a third, if it counts
    recalibrate_batch_norms(model, _task(batches), [*batches, *few])
    arrays = [x.numpy() for x, _ in batches]
    means = [x.mean(axis=(0, 2, 3)) for x in arrays]
    variances = [x.var(axis=(0, 2, 3), ddof=1) for x in arrays]
    np.testing.assert_allclose(norm.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), np.mean(variances, axis=0), rtol=1e-5)
    assert norm.momentum == 0.2
    assert not any(module.training for module in model.modules())
    assert torch.equal(norm.weight, weights)
    assert norm.weight.grad is None


def test_models_without_running_statistics_are_left_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2))
    batches = _labelled(torch.randn(4, 3))
    recalibrate_batch_norms(model, _task(batches), batches)
    assert not model.training
    assert model[0].running_mean is None


@pytest.mark.parametrize(
    ("candidate", "recalibrated"),
    [
        (Candidate(dropped_blocks=("layer1.1",)), True),
        (Candidate(layers={"fc": LayerConfig(weight_bits=4, activation_bits=8)}), True),
        (Candidate(layers={"fc": LayerConfig(weight_bits=8, activation_bits=8)}), False),
        (Candidate(), False),
    ],
    ids=["dropped", "4 bits", "8 bits", "unmodified"],
)
def test_settling_recalibrates_what_has_changed(candidate: Candidate, recalibrated: bool) -> None:
    model, inputs = seasoned("ResidualNet")
    result = compressed(model, inputs, candidate)
    before = result.network.bn1.running_mean.clone()
    result.reset_grids()
    batches = _labelled(inputs + 1.0)
    settle(result, _task(batches), batches, batches)
    assert result.calibrated
    assert result.quantise_weights
    assert result.quantise_activations
    assert not result.training
    assert torch.equal(result.network.bn1.running_mean, before) is not recalibrated


def test_exact_grids_are_those_of_float32() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(pruning_ratios=pruned(graph, 0.25), layers=uniform(graph, 8))
    result = compressed(model, inputs, candidate)
    batches = _labelled(inputs)
    settle(result, _task(batches), batches, batches, exact=True)
    settled = [q.get_extra_state() for q in result.quantisers]
    with torch.no_grad(), result.observing("mse"):
        result.reset_grids()
        result(inputs)
    for quantiser, grid in zip(result.quantisers, settled, strict=True):
        torch.testing.assert_close(quantiser.get_extra_state(), grid, rtol=0, atol=0)


def test_scores_are_fractions_of_all_examples() -> None:
    model = nn.Identity()
    outputs = torch.eye(3)[[0, 1, 2, 0, 0]]
    labels = torch.tensor([0, 1, 2, 1, 2])
    batches = [(outputs[:2], labels[:2]), (outputs[2:], labels[2:])]
    assert score(model, _task(batches), batches) == pytest.approx(3 / 5)
    model.train()
    assert score(model, _task(batches), batches, low_precision=False) == pytest.approx(3 / 5)
    assert not model.training


def test_divergence_is_the_relative_entropy() -> None:
    batches = _labelled(torch.randn(5, 4), torch.randn(3, 4))
    reference = predictions(nn.Identity(), _task(batches), batches)
    logits = torch.cat([x for x, _ in batches]).double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(reference.exp().numpy(), p, rtol=1e-5)
    other = torch.randn(8, 4).log_softmax(1)
    expected = entropy(p, other.double().exp().numpy(), axis=1).mean()
    form = OutputForm()
    assert float(form.divergence(reference, other)) == pytest.approx(expected, rel=1e-5)
    assert float(form.divergence(reference, reference)) == 0.0


def test_arithmetic_is_bfloat16_only_where_it_is_asked_for_and_fast() -> None:
    a = torch.randn(4, 4)
    with arithmetic("cpu", low_precision=False):
        assert (a @ a).dtype == torch.float32
    with arithmetic("cpu"):
        expected = torch.bfloat16 if bfloat16_is_fast("cpu") else torch.float32
        assert (a @ a).dtype == expected
    assert (a @ a).dtype == torch.float32


def test_small_batches_between_others_count() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    wide, narrow = torch.zeros(8, 3, 2, 2), torch.ones(2, 3, 8, 8)  # as loaders by size give them
    batches = _labelled(wide, narrow, narrow, narrow, wide)
    recalibrate_batch_norms(model, _task(batches), batches)
    np.testing.assert_allclose(model[0].running_mean.numpy(), 0.6, rtol=1e-6)
