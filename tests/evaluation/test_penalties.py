import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.evaluation.penalties import group_lasso, norm_scales_l1
from autocompress.graph.tracing import trace
from autocompress.transform.record import Cut
from autocompress.transform.surgery import plan_cuts
from seasoned import seasoned


def _cut(module: str, axis: str, size: int, *removed: int) -> Cut:
    return Cut(module=module, axis=axis, size=size, removed=removed)


def test_the_scales_of_doomed_channels_are_summed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    scales = torch.tensor([1.0, -2.0, 3.0, -4.0])
    network[1].weight.data = scales
    doomed = [_cut("0", "out", 4, 1, 3), _cut("1", "out", 4, 1, 3)]
    loss = norm_scales_l1(network, doomed)
    assert float(loss.detach()) == 6.0
    loss.backward()
    assert network[1].weight.grad.tolist() == [0.0, -1.0, 0.0, -1.0]
    assert float(norm_scales_l1(network, [])) == 0.0


def test_the_lasso_is_the_sum_of_norms_of_filters_and_channels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    doomed = [
        _cut("0", "out", 4, 0, 2),
        _cut("1", "out", 4, 0, 2),
        _cut("2", "in", 4, 0, 2),
    ]
    first, second = (network[i].weight.detach().numpy() for i in (0, 2))
    expected = sum(np.linalg.norm(first[c]) + np.linalg.norm(second[:, c]) for c in (0, 2))
    assert float(group_lasso(network, doomed).detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(group_lasso(network, [])) == 0.0


def test_transposed_and_depthwise_layers_are_read_along_their_own_axes() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    turned, depthwise = (layer.weight.detach().numpy() for layer in network)
    assert float(group_lasso(network, [_cut("0", "out", 4, 1)]).detach()) == pytest.approx(
        float(np.linalg.norm(turned[:, 1])), rel=1e-5
    )
    both = [_cut("1", "out", 4, 1), _cut("1", "in", 4, 1)]
    expected = float(np.linalg.norm(depthwise[1]))
    assert float(group_lasso(network, both).detach()) == pytest.approx(expected, rel=1e-5)


def test_gradients_of_zeroed_channels_are_finite() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    network[0].weight.data.zero_()
    group_lasso(network, [_cut("0", "out", 2, 0)]).backward()
    assert network[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ResidualNet", "InvertedResidualNet", "ConcatNet"])
def test_the_penalties_reach_everything_that_is_cut(name: str) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    ratios = {group.name: 0.5 for group in graph.groups if group.prunable}
    doomed = plan_cuts(model, graph, Candidate(pruning_ratios=ratios))
    (group_lasso(model, doomed) + norm_scales_l1(model, doomed)).backward()
    for cut in doomed:
        weight = model.get_submodule(cut.module).weight
        if weight is None or (cut.axis == "in" and weight.shape[1:2] != (cut.size,)):
            continue
        rows = weight.grad.transpose(0, 1) if cut.axis == "in" else weight.grad
        reached = rows.reshape(len(rows), -1).abs().sum(dim=1) > 0
        assert reached[list(cut.removed)].all(), cut.module
