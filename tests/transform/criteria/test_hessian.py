import numpy as np
import pytest
import torch

from autocompress.transform.criteria import gather_evidence
from subjects import gradients_by_hand, loss, mixed, observed, reading, run, scores_of


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_half_the_fisher_times_squared_weights(name: str) -> None:
    model, graph, batches, evidence = observed()
    group, examples = graph.group(name), len(batches[0][0])
    expected = np.zeros(group.channels)
    for member in reading(group):
        for products in gradients_by_hand(model, batches, member.module):
            for channel, positions in enumerate(member.indices):
                squares = sum((products[position] ** 2).sum() for position in positions)
                expected[channel] += 0.5 * examples * squares / len(batches)
    np.testing.assert_allclose(scores_of("hessian", model, group, evidence), expected, rtol=1e-3)


def test_a_channel_that_nothing_reads_scores_lowest() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[3] = 0.0
    evidence = gather_evidence(model, graph, batches, run, loss)
    scores = scores_of("hessian", model, graph.group("conv"), evidence)
    assert scores[3] == 0.0
    assert (scores == 0.0).sum() == 1
