import numpy as np
import pytest
import torch
from torch import nn

from autocompress.graph.structure import ChannelGroup, GroupMember
from subjects import filters_by_hand, make_group, mixed, scores_of, summed_by_hand


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_sums_over_the_filters_that_produce_a_channel(name: str) -> None:
    model, graph, _ = mixed()
    group = graph.group(name)
    expected = summed_by_hand(
        group, lambda layer: [sum(abs(w) for w in row) for row in filters_by_hand(model, layer)]
    )
    np.testing.assert_allclose(scores_of("l1", model, group), expected, rtol=1e-6)


def test_a_channel_may_be_several_filters() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 6)})
    member = GroupMember(module="a", axis="out", indices=((0, 1), (2, 3), (4, 5)))
    group = ChannelGroup(name="a", channels=3, members=(member,), prunable=True)
    rows = model["a"].weight.detach().double().abs().sum(dim=1).numpy()
    np.testing.assert_allclose(scores_of("l1", model, group), rows.reshape(3, 2).sum(axis=1))


def test_a_zeroed_channel_scores_lowest() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(2, 4, 3), "b": nn.Conv2d(2, 4, 1)})
    with torch.no_grad():
        model["a"].weight[2] = model["b"].weight[2] = 0.0
    scores = scores_of("l1", model, make_group(4, ("a", "out"), ("b", "out")))
    assert scores.argmin() == 2
    assert scores[2] == 0.0


def test_the_model_is_only_read() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 3)})
    before = model["a"].weight.detach().clone()
    scores_of("l1", model, make_group(3, ("a", "out")))
    assert torch.equal(model["a"].weight, before)
