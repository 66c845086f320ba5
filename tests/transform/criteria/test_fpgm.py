import math

import numpy as np
import pytest
import torch
from torch import nn

from subjects import filters_by_hand, make_group, mixed, scores_of, summed_by_hand


@pytest.mark.parametrize("name", ["conv", "up"])
def test_scores_are_sums_of_distances_to_all_filters(name: str) -> None:
    model, graph, _ = mixed()

    def worth(layer: str) -> list[float]:
        rows = filters_by_hand(model, layer)
        return [
            sum(
                math.sqrt(sum((a - b) ** 2 for a, b in zip(row, other, strict=True)))
                for other in rows
            )
            for row in rows
        ]

    group = graph.group(name)
    expected = summed_by_hand(group, worth)
    np.testing.assert_allclose(scores_of("fpgm", model, group), expected, rtol=1e-6)


def test_duplicates_go_before_what_stands_alone() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 4, bias=False)})
    with torch.no_grad():  # large twins, a large loner, and a small loner that L1 would take
        model["a"].weight.copy_(
            torch.tensor([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, -4.0]])
        )
    group = make_group(4, ("a", "out"))
    scores = scores_of("fpgm", model, group)
    assert set(np.argsort(scores)[:2]) == {0, 1}
    assert scores[0] == pytest.approx(scores[1])
    assert scores_of("l1", model, group).argmin() == 3


def test_many_filters_are_as_exact_as_few() -> None:
    model = nn.ModuleDict({"a": nn.Linear(50, 200)})
    rows = model["a"].weight.detach().double()
    expected = (rows[:, None] - rows[None]).square().sum(dim=2).sqrt().sum(dim=1)
    scores = scores_of("fpgm", model, make_group(200, ("a", "out")))
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)
