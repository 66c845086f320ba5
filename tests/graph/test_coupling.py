from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.graph.slicing import prune_groups
from autocompress.graph.structure import ChannelGroup
from autocompress.graph.tracing import trace
from zoo import (
    ConcatNet,
    InvertedResidualNet,
    Mlp,
    OptionANet,
    PlainNet,
    ResidualNet,
    SqueezeExcite,
    conv_bn,
)


def _groups(model: nn.Module, *shape: int) -> dict[str, ChannelGroup]:
    return trace(model, torch.randn(*shape)).group_by_name


def _members(group: ChannelGroup) -> set[tuple[str, str]]:
    return {(member.module, member.axis) for member in group.members}


def test_a_chain_couples_producer_norm_and_consumer() -> None:
    groups = _groups(PlainNet(), 2, 3, 16, 16)
    assert list(groups) == ["conv1", "conv2", "conv3", "fc"]
    assert _members(groups["conv1"]) == {("conv1", "out"), ("bn1", "out"), ("conv2", "in")}
    assert [group.prunable for group in groups.values()] == [True, True, True, False]
    assert groups["fc"].reason == "output layer"


def test_a_trunk_is_named_by_its_first_layer() -> None:
    groups = _groups(ResidualNet(8, 2), 2, 3, 16, 16)
    assert list(groups) == [
        *("conv1", "layer1.0.conv1", "layer1.1.conv1"),
        *("layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1", "fc"),
    ]
    producers = {module for module, axis in _members(groups["layer2.0.conv2"]) if axis == "out"}
    assert producers == {
        *("layer2.0.conv2", "layer2.0.bn2", "layer2.0.shortcut.0", "layer2.0.shortcut.1"),
        *("layer2.1.conv2", "layer2.1.bn2"),
    }
    assert all(group.prunable for name, group in groups.items() if name != "fc")


@pytest.mark.parametrize("make", [PlainNet, ResidualNet, InvertedResidualNet, ConcatNet])
def test_the_memory_format_does_not_matter(make: Callable[[], nn.Module]) -> None:
    model, x = (
        make(),
        torch.randn(2, 3, 16, 16) if make is not ConcatNet else torch.randn(2, 3, 8, 8),
    )
    last = trace(
        model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    )
    assert last.groups == trace(model.to(memory_format=torch.contiguous_format), x).groups


def test_depthwise_convolutions_follow_their_producer() -> None:
    groups = _groups(InvertedResidualNet(8), 2, 3, 16, 16)
    expand = groups["blocks.0.expand.0"]
    assert expand.prunable
    assert ("blocks.0.depthwise.0", "out") in _members(expand)
    assert ("blocks.0.project.0", "in") in _members(expand)
    assert not any("depthwise" in name for name in groups)


def test_flattening_gives_each_channel_several_positions() -> None:
    groups = _groups(ConcatNet(4), 2, 3, 8, 8)
    flattened = {m.module: m.indices for m in groups["merge"].members}["fc"]
    assert flattened == tuple(tuple(range(16 * c, 16 * c + 16)) for c in range(4))
    assert groups["merge"].prunable


def test_concatenation_shifts_the_second_branch() -> None:
    groups = _groups(ConcatNet(4), 2, 3, 8, 8)
    left, right = ({m.module: m.indices for m in groups[n].members} for n in ("left.0", "right.0"))
    assert left["merge"] == tuple((c,) for c in range(4))
    assert right["merge"] == tuple((4 + c,) for c in range(8))
    assert groups["left.0"].prunable
    assert groups["right.0"].prunable


def test_a_depthwise_convolution_after_a_concatenation_belongs_to_both() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
            self.depthwise = conv_bn(12, 12, groups=12)
            self.head = nn.Conv2d(12, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.depthwise(torch.cat([self.a(x), self.b(x)], 1))).mean((2, 3))

    groups = _groups(Net(), 2, 3, 8, 8)
    assert {name: group.prunable for name, group in groups.items()} == {
        "a": True,
        "b": True,
        "head": False,
    }
    assert ("depthwise.0", "out") in _members(groups["a"]) & _members(groups["b"])


def test_a_wide_producer_is_split_between_branches() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(6, 12)
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 8)
            self.head = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = self.wide(x)
            return self.head(wide + torch.cat([self.a(x), self.b(x)], 1))

    groups = _groups(Net(), 2, 6)
    assert {name: group.prunable for name, group in groups.items()} == {
        "a": True,
        "b": True,
        "head": False,
    }
    assert ("wide", "out") in _members(groups["a"]) & _members(groups["b"])


def test_grouped_convolutions_lose_equal_numbers_or_whole_groups() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 4, 1),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(8, 4, 1),
        nn.Conv2d(4, 2, 1),
    )
    groups = _groups(model, 2, 3, 8, 8)
    assert {name: (group.channels, group.reason) for name, group in groups.items()} == {
        "0": (4, ""),
        "1": (4, ""),
        "2": (4, ""),
        "4": (4, ""),
        "5": (2, "output layer"),
    }
    indices = {(m.module, m.axis): m.indices for g in groups.values() for m in g.members}
    assert indices["1", "in"] == indices["1", "out"] == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert indices["3", "out"] == indices["4", "in"] == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_what_group_norm_normalises_together_goes_together() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 2, 1))
    group = _groups(model, 2, 3, 8, 8)["0"]
    assert (group.channels, group.prunable) == (4, True)
    assert {m.module: m.indices[1] for m in group.members}["1"] == (3, 4, 5)


def test_squeeze_and_excite_follow_what_they_weigh() -> None:
    model = nn.Sequential(conv_bn(3, 8), nn.ReLU(), SqueezeExcite(8, 4), nn.Conv2d(8, 2, 1))
    groups = _groups(model, 2, 3, 8, 8)
    assert _members(groups["0.0"]) == {
        *(("0.0", "out"), ("0.1", "out"), ("2.reduce", "in"), ("2.expand", "out"), ("3", "in")),
    }
    assert _members(groups["2.reduce"]) == {("2.reduce", "out"), ("2.expand", "in")}
    assert [group.prunable for group in groups.values()] == [True, True, False]


def test_the_zero_padded_trunk_is_shifted_and_its_padding_follows() -> None:
    groups = _groups(OptionANet(8, 1), 2, 3, 16, 16)
    trunks = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
    assert [groups[name].channels for name in trunks] == [8, 4, 8]
    assert all(groups[name].prunable for name in trunks)
    first, second, third = (
        {(m.module, m.axis): m.indices for m in groups[n].members} for n in trunks
    )
    assert first["layer2.0.conv2", "out"] == tuple((4 + c,) for c in range(8))
    assert first["fc", "in"] == tuple((12 + c,) for c in range(8))
    assert second["layer2.0.conv2", "out"] == tuple((c, 12 + c) for c in range(4))
    assert second["fc", "in"] == tuple((8 + c, 20 + c) for c in range(4))
    assert second["layer2.0", ".padding"] == tuple((c,) for c in range(4))
    assert third["layer3.0", ".padding"] == tuple((c,) for c in range(8))


def test_padding_by_a_fixed_number_keeps_its_channels() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.head(self.second(x) + functional.pad(x, (0, 0, 0, 0, 2, 2)))

    groups = _groups(Net(), 2, 3, 4, 4)
    assert groups["first"].prunable
    assert (groups["second"].channels, groups["second"].reason) == (
        4,
        "padded by a fixed number of channels",
    )


def test_the_amounts_of_a_padding_module_follow() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 7, 1)
            self.pad, self.head = nn.ZeroPad3d((0, 0, 0, 0, 0, 3)), nn.Conv2d(7, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.head(self.second(x) + self.pad(x))

    model = Net()
    group = _groups(model, 2, 3, 4, 4)["second"]
    assert (group.channels, group.prunable) == (3, True)
    assert ("pad", ".padding.5") in _members(group)
    prune_groups(model, [(group, [1])])
    assert model.pad.padding == (0, 0, 0, 0, 0, 2)
    assert model(torch.randn(2, 3, 4, 4)).shape == (2, 2, 4, 4)


def test_sizes_of_a_split_follow() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.sizes = nn.Conv2d(3, 8, 1), [5, 3]
            self.left, self.right = nn.Conv2d(5, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.body(x).split(self.sizes, 1)
            return self.left(left) + self.right(right)

    model = Net()
    groups = trace(model, torch.randn(2, 3, 4, 4)).groups
    assert [(g.name, g.channels, g.prunable) for g in groups] == [
        ("body", 5, True),
        ("left", 2, False),
    ]
    prune_groups(model, [(groups[0], [0, 4])])
    assert model.sizes == [3, 3]
    assert model(torch.randn(2, 3, 4, 4)).shape == (2, 2, 4, 4)


def test_shared_layers_and_tied_weights_are_kept_whole() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.again(functional.relu(self.again(self.first(x)))))

    groups = _groups(Twice(), 2, 4)
    assert groups["first"].reason == "shared weights"
    assert ("again", "out") in _members(groups["first"])
    tied = Mlp(8, 8, 8)
    tied.fc2.weight = tied.fc1.weight
    groups = _groups(tied, 2, 8)
    assert groups["fc1"].reason == "shared weights"


def test_free_parameters_follow_their_channels() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 2)
            self.scale = nn.Parameter(torch.ones(1, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.fc2(functional.relu(self.fc1(x))) * self.scale)

    groups = _groups(Scaled(), 2, 4)
    assert ("", "scale:1") in _members(groups["fc2"])
    assert groups["fc2"].prunable


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda: nn.LayerNorm(8), "normalised over its channels (LayerNorm)"),
        (lambda: nn.Softmax(1), "softmax over its channels"),
        (lambda: nn.GroupNorm(1, 8), "normalised over its channels (GroupNorm)"),
        (lambda: nn.RMSNorm(8), "averaged over its channels"),
    ],
)
def test_what_mixes_channels_is_named(between: Callable[[], nn.Module], reason: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), between(), nn.Linear(8, 3))
    assert _groups(model, 2, 4)["0"].reason == reason


def test_unknown_operators_are_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).cumsum(1))

    assert _groups(Net(), 2, 4)["body"].reason == "unsupported operator 'cumsum'"


def test_computed_weights_are_kept_whole() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.Linear(8, 3))
    assert _groups(model, 2, 4)["0"].reason == "computed weights"


@pytest.mark.parametrize("head", ["softmax", "flatten", "dict"])
def test_the_output_is_found_behind_operations(head: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

        def forward(self, x: torch.Tensor) -> object:
            out = self.head(self.body(x))
            if head == "softmax":
                return out.softmax(1)
            if head == "flatten":
                return functional.adaptive_avg_pool2d(out, 1).flatten(1)
            return {"logits": out, "labels": out.argmax(1), "loss": None}

    groups = _groups(Net(), 2, 3, 4, 4)
    assert groups["body"].prunable
    assert groups["head"].reason == "output layer"


def test_a_single_channel_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    assert _groups(model, 2, 3)["0"].reason == "has a single channel"


def test_a_transformer_keeps_its_trunk_and_offers_its_hidden_layers() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
            self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
            self.expand, self.contract = nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, t, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.project(mixed.transpose(1, 2).reshape(n, t, c))
            return x + self.contract(functional.gelu(self.expand(self.norm2(x))))

    model = nn.Sequential(nn.Linear(6, 16), Block(), Block(), nn.Linear(16, 3))
    groups = _groups(model, 2, 5, 6)
    assert [name for name, group in groups.items() if group.prunable] == ["1.expand", "2.expand"]
    assert all(group.reason for group in groups.values() if not group.prunable)
