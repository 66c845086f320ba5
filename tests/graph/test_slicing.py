import time

import pytest
import torch
from torch import nn

from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.graph.blocks import drop_blocks
from autocompress.graph.slicing import prune_groups, remove_channels, removed_positions
from autocompress.graph.structure import ChannelGroup, GroupMember
from autocompress.graph.tracing import trace
from zoo import OptionANet


def test_convolution_outputs_and_inputs() -> None:
    layer = nn.Conv2d(3, 5, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    remove_channels(layer, "out", [3, 1])
    remove_channels(layer, "in", [0])
    assert torch.equal(layer.weight, weight[[0, 2, 4]][:, [1, 2]])
    assert torch.equal(layer.bias, bias[[0, 2, 4]])
    assert (layer.in_channels, layer.out_channels) == (2, 3)
    assert layer(torch.zeros(1, 2, 4, 4)).shape == (1, 3, 2, 2)


def test_transposed_and_depthwise_convolutions() -> None:
    layer = nn.ConvTranspose2d(4, 6, 2)
    weight = layer.weight.detach().clone()
    remove_channels(layer, "out", [0, 5])
    remove_channels(layer, "in", [2])
    assert torch.equal(layer.weight, weight[[0, 1, 3]][:, 1:5])
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    weight = depthwise.weight.detach().clone()
    remove_channels(depthwise, "out", [1])
    assert torch.equal(depthwise.weight, weight[[0, 2, 3]])
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 3


def test_grouped_convolutions_lose_whole_groups_or_equal_numbers() -> None:
    layer = nn.Conv2d(6, 12, 3, groups=3)
    weight = layer.weight.detach().clone()
    remove_channels(layer, "out", [4, 5, 6, 7])
    assert torch.equal(layer.weight, weight[[0, 1, 2, 3, 8, 9, 10, 11]])
    assert (layer.groups, layer.in_channels, layer.out_channels) == (2, 4, 8)
    layer = nn.Conv2d(6, 12, 3, groups=3)
    weight = layer.weight.detach().clone()
    remove_channels(layer, "out", [1, 5, 9])
    remove_channels(layer, "in", [0, 2, 4])
    kept = [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert torch.equal(layer.weight, weight[kept][:, [1]])
    assert (layer.groups, layer.in_channels, layer.out_channels) == (3, 3, 9)
    assert layer(torch.zeros(1, 3, 4, 4)).shape == (1, 9, 2, 2)


def test_group_norm_and_embedding() -> None:
    norm = nn.GroupNorm(4, 8)
    remove_channels(norm, "out", [2, 3])
    assert (norm.num_groups, norm.num_channels, norm.weight.shape) == (3, 6, (6,))
    table = nn.Embedding(5, 3)
    remove_channels(table, "weight:1", [1])
    assert table(torch.tensor([4])).shape == (1, 2)
    assert table.embedding_dim == 2


def test_parameters_and_counts_of_any_module() -> None:
    module = nn.Module()
    module.table, module.heads = nn.Parameter(torch.arange(6.0).view(2, 3)), 3
    remove_channels(module, "table:1", [0])
    remove_channels(module, ".heads", [0])
    assert module.table.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert module.heads == 2


def test_batch_norm_loses_its_statistics() -> None:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.copy_(torch.arange(4.0))
    remove_channels(norm, "out", [1, 2])
    assert torch.equal(norm.running_mean, torch.tensor([0.0, 3.0]))
    assert norm.weight.shape == norm.bias.shape == norm.running_var.shape == (2,)
    assert norm.num_features == 2


def test_frozen_parameters_stay_frozen() -> None:
    layer = nn.Linear(4, 3)
    layer.bias.requires_grad_(False)
    remove_channels(layer, "out", [0])
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_a_single_slope_is_shared_by_all_channels() -> None:
    slope = nn.PReLU()
    remove_channels(slope, "out", [0, 1])
    assert slope.weight.shape == (1,)


@pytest.mark.parametrize("positions", [[0, 1, 2], [3], [-1]])
def test_impossible_positions_are_refused(positions: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="positions to remove from Linear"):
        remove_channels(nn.Linear(4, 3), "out", positions)


def test_other_modules_are_refused() -> None:
    with pytest.raises(WrongTypeError, match="LSTM"):
        remove_channels(nn.LSTM(2, 2), "out", [0])


def test_groups_on_one_axis_are_cut_together() -> None:
    def group(name: str, first: int) -> ChannelGroup:
        members = (
            GroupMember(module=name, axis="out", indices=((0,), (1,))),
            GroupMember(module="2", axis="in", indices=((first,), (first + 1,))),
        )
        return ChannelGroup(name=name, channels=2, members=members, prunable=True)

    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(4, 1)])
    weight = model[2].weight.detach().clone()
    removals = [(group("0", 0), [1]), (group("1", 2), [0])]
    assert removed_positions(removals)["2", "in"] == (1, 2)
    prune_groups(model, removals)
    assert torch.equal(model[2].weight, weight[:, [0, 3]])


def test_modules_of_dropped_blocks_are_skipped() -> None:
    model = OptionANet(8, 2).eval()
    x = torch.randn(2, 3, 16, 16)
    graph = trace(model, x)
    drop_blocks(model, ["layer1.1"])
    prune_groups(model, [(group, [0, 3]) for group in graph.groups if group.prunable])
    assert model.layer1[0].conv1.out_channels == 6
    assert model(x).shape == (2, 10)


@pytest.mark.bench
def test_resnet_56_is_cut_within_50_ms() -> None:
    model = OptionANet(16, 9)
    graph = trace(model, torch.zeros(2, 3, 32, 32))
    removals = [(g, range(0, g.channels, 2)) for g in graph.groups if g.prunable]
    start = time.perf_counter()
    prune_groups(model, removals)
    assert time.perf_counter() - start < 0.05


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_weight_keeps_its_memory_format(memory_format: torch.memory_format) -> None:
    layer = nn.Conv2d(4, 6, 3).to(memory_format=memory_format)  # type: ignore[call-overload]
    remove_channels(layer, "out", [1, 3])
    remove_channels(layer, "in", [0])
    assert layer.weight.is_contiguous(memory_format=memory_format)


def test_a_depthwise_transposed_convolution_may_lose_all_channels_but_one() -> None:
    layer = nn.ConvTranspose2d(4, 4, 2, groups=4)
    weight = layer.weight.detach().clone()
    remove_channels(layer, "out", [0, 1, 3])
    assert torch.equal(layer.weight, weight[[2]])
    assert (layer.groups, layer.in_channels, layer.out_channels) == (1, 1, 1)
    assert layer(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 5, 5)
