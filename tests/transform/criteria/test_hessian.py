import numpy as np
import pytest
import torch

from autocompress.transform.criteria import gather_evidence
from subjects import (
    filters_by_hand,
    gradients_by_hand,
    loss,
    mixed,
    observed,
    run,
    scores_of,
    summed_by_hand,
)


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_half_the_fisher_times_squared_weights(name: str) -> None:
    model, graph, batches, evidence = observed()

    def worth(layer: str) -> list[float]:
        weights = filters_by_hand(model, layer)
        totals = [0.0] * len(weights)
        for (images, _), gradient in zip(
            batches, gradients_by_hand(model, batches, layer), strict=True
        ):
            gradient = gradient.swapaxes(0, 1) if layer == "up" else gradient
            for index, row in enumerate(weights):
                for g, w in zip(gradient[index].ravel(), row, strict=True):
                    totals[index] += 0.5 * len(images) * g**2 * w**2 / len(batches)
        return totals

    group = graph.group(name)
    expected = summed_by_hand(group, worth)
    np.testing.assert_allclose(scores_of("hessian", model, group, evidence), expected, rtol=1e-4)


def test_a_zeroed_channel_scores_lowest() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[:, 3] = 0.0
    evidence = gather_evidence(model, graph, batches, run, loss)
    scores = scores_of("hessian", model, graph.group("up"), evidence)
    assert scores[3] == 0.0
    assert (scores == 0.0).sum() == 1
