import numpy as np
import torch
from torch import nn

from subjects import filters_by_hand, make_group, mixed, readers_by_hand, scores_of


def test_scores_are_norms_of_all_that_goes_with_a_channel() -> None:
    model, graph, _ = mixed()
    up = readers_by_hand(model.up, model.up.weight.detach().double().numpy())
    scales = model.norm.weight.detach().double().numpy()
    expected = [
        np.sqrt(sum((rows[channel] ** 2).sum() for rows in rows_of) + scales[channel] ** 2)
        for channel in range(6)
        for rows_of in [(filters_by_hand(model, "conv"), filters_by_hand(model, "depthwise"), up)]
    ]
    np.testing.assert_allclose(scores_of("group_norm", model, graph.group("conv")), expected)


def test_a_group_without_norms_is_scored_by_its_weights() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 3, bias=False)})
    with torch.no_grad():
        model["a"].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        model["b"].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    group = make_group(2, ("a", "out"), ("b", "in"))
    assert scores_of("group_norm", model, group).tolist() == [5.0, 1.0]
