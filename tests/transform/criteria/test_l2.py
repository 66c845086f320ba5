import math

import numpy as np
import pytest
import torch
from torch import nn

from subjects import filters_by_hand, make_group, mixed, scores_of, summed_by_hand


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_sums_of_the_norms_of_filters(name: str) -> None:
    model, graph, _ = mixed()
    group = graph.group(name)
    expected = summed_by_hand(
        group,
        lambda layer: [math.sqrt(sum(w * w for w in row)) for row in filters_by_hand(model, layer)],
    )
    np.testing.assert_allclose(scores_of("l2", model, group), expected, rtol=1e-6)


def test_one_large_weight_counts_more_than_many_small_ones() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 2)})
    with torch.no_grad():
        model["a"].weight.copy_(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.4, 0.4, 0.4, 0.4]]))
    group = make_group(2, ("a", "out"))
    assert scores_of("l2", model, group).argmin() == 1
    assert scores_of("l1", model, group).argmin() == 0
