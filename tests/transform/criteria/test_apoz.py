import numpy as np
import torch
from torch.nn import functional

from autocompress.transform.criteria import Evidence, gather_evidence
from subjects import make_group, mixed, observed, run, scores_of


def test_scores_are_the_share_of_activations_that_are_not_zero() -> None:
    model, graph, batches, evidence = observed()
    images = torch.cat([batch[0] for batch in batches])
    with torch.no_grad():
        read = functional.relu(model.norm(model.conv(images)))
        read = functional.relu(model.up(model.depthwise(read))).numpy()
    expected = []
    for channel in range(5):
        zeros = sum(value == 0.0 for value in read[:, channel].ravel())
        expected.append(1.0 - zeros / read[:, channel].size)
    assert 0.0 < min(expected) < max(expected)
    scores = scores_of("apoz", model, graph.group("up"), evidence)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_a_channel_that_is_always_zero_scores_lowest() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[:, 1] = 0.0
        model.up.bias[1] = -1.0
    evidence = gather_evidence(model, graph, batches, run)
    scores = scores_of("apoz", model, graph.group("up"), evidence)
    assert scores[1] == 0.0
    assert scores.argmin() == 1
    assert (scores[[0, 2, 3, 4]] > 0).all()


def test_consumers_are_averaged_and_those_not_observed_left_out() -> None:
    model, _, _ = mixed()
    group = make_group(2, ("conv", "out"), ("a", "in"), ("b", "in"), ("c", "in"))
    zeros = {"a": torch.tensor([0.5, 0.0]).double(), "b": torch.tensor([1.0, 0.2]).double()}
    scores = scores_of("apoz", model, group, Evidence(zeros=zeros))
    np.testing.assert_allclose(scores, [0.25, 0.9])
