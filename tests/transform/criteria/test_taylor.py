import numpy as np
import pytest
import torch

from autocompress.transform.criteria import gather_evidence
from subjects import (
    Array,
    loss,
    make_group,
    mean_by_hand,
    mixed,
    observed,
    run,
    scores_of,
    summed_by_hand,
)


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_squared_sums_of_gradient_times_weight(name: str) -> None:
    model, graph, batches, evidence = observed()

    def worth(gradient: Array, weight: Array) -> float:
        return sum(g * w for g, w in zip(gradient, weight, strict=True)) ** 2

    group = graph.group(name)
    expected = summed_by_hand(group, lambda layer: mean_by_hand(model, batches, layer, worth))
    np.testing.assert_allclose(scores_of("taylor", model, group, evidence), expected, rtol=1e-4)


def test_a_channel_that_nothing_reads_scores_lowest() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[2] = 0.0
    evidence = gather_evidence(model, graph, batches, run, loss)
    scores = scores_of("taylor", model, graph.group("conv"), evidence)
    assert scores[2] == 0.0
    assert (scores == 0.0).sum() == 1


def test_what_was_not_observed_counts_nothing() -> None:
    model, _, _ = mixed()
    assert scores_of("taylor", model, make_group(6, ("conv", "out"))).tolist() == [0.0] * 6
