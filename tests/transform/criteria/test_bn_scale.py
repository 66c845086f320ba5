import numpy as np
import torch
from torch import nn

from subjects import make_group, mixed, scores_of


def test_scores_are_sums_of_absolute_scales() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(2, 3, 1), "n": nn.BatchNorm2d(3), "m": nn.BatchNorm1d(3)})
    with torch.no_grad():
        model["n"].weight.copy_(torch.tensor([0.5, -2.0, 0.0]))
        model["m"].weight.copy_(torch.tensor([-1.0, 1.0, 0.25]))
    group = make_group(3, ("a", "out"), ("n", "out"), ("m", "out"))
    np.testing.assert_allclose(scores_of("bn_scale", model, group), [1.5, 3.0, 0.25])


def test_a_traced_group_takes_its_norm() -> None:
    model, graph, _ = mixed()
    scales = model.norm.weight.detach().abs().double().numpy()
    np.testing.assert_allclose(scores_of("bn_scale", model, graph.group("conv")), scales)


def test_without_scales_all_channels_are_one() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(2, 3, 1), "n": nn.BatchNorm2d(3, affine=False)})
    assert scores_of("bn_scale", model, make_group(3, ("a", "out"))).tolist() == [1, 1, 1]
    with_norm = make_group(3, ("a", "out"), ("n", "out"))
    assert scores_of("bn_scale", model, with_norm).tolist() == [1, 1, 1]
