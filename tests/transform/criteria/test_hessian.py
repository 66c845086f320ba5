import numpy as np
import pytest
import torch

from autocompress.transform.criteria import gather_evidence
from subjects import (
    Array,
    loss,
    mean_by_hand,
    mixed,
    observed,
    run,
    scores_of,
    summed_by_hand,
)


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_half_the_fisher_times_squared_weights(name: str) -> None:
    model, graph, batches, evidence = observed()

    def worth(gradient: Array, weight: Array) -> float:
        examples = len(batches[0][0])
        return sum(0.5 * examples * g**2 * w**2 for g, w in zip(gradient, weight, strict=True))

    group = graph.group(name)
    expected = summed_by_hand(group, lambda layer: mean_by_hand(model, batches, layer, worth))
    np.testing.assert_allclose(scores_of("hessian", model, group, evidence), expected, rtol=1e-4)


def test_a_zeroed_channel_scores_lowest() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[:, 3] = 0.0
    evidence = gather_evidence(model, graph, batches, run, loss)
    scores = scores_of("hessian", model, graph.group("up"), evidence)
    assert scores[3] == 0.0
    assert (scores == 0.0).sum() == 1
