import numpy as np
import pytest
import torch

from autocompress.transform.criteria import gather_evidence
from subjects import (
    gradients_by_hand,
    loss,
    make_group,
    mixed,
    observed,
    reading,
    run,
    scores_of,
)


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_squared_sums_over_all_that_reads_a_channel(name: str) -> None:
    model, graph, batches, evidence = observed()
    group = graph.group(name)
    expected = np.zeros(group.channels)
    for number in range(len(batches)):
        change = np.zeros(group.channels)
        for member in reading(group):
            products = gradients_by_hand(model, batches, member.module)[number]
            for channel, positions in enumerate(member.indices):
                change[channel] += sum(products[position].sum() for position in positions)
        expected += change**2 / len(batches)
    np.testing.assert_allclose(scores_of("taylor", model, group, evidence), expected, rtol=1e-3)


def test_scores_are_the_first_order_change_of_the_loss_without_a_channel() -> None:
    model, graph, batches, evidence = observed()
    scores = scores_of("taylor", model, graph.group("conv"), evidence)
    step = 1e-3
    expected = []
    for channel in range(6):
        changes = []
        for batch in batches:
            with torch.no_grad():
                whole = loss(run(model.double(), (batch[0].double(), batch[1])), batch)
                weight = model.up.weight
                before = weight[channel].clone()
                weight[channel] = before * (1 - step)
                less = loss(run(model, (batch[0].double(), batch[1])), batch)
                weight[channel] = before
            changes.append(float(less - whole) / step)
        expected.append(np.mean(np.square(changes)))
    np.testing.assert_allclose(scores, expected, rtol=2e-2)


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
