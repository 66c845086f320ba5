import copy
from collections import namedtuple
from collections.abc import Collection
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.blocks import drop_blocks
from autocompress.graph.operations import (
    OperationTrace,
    layer_arguments,
    like,
    norm_owners,
    record_operations,
    weight_owners,
)
from autocompress.graph.tracing import trace
from seasoned import SHAPES, seasoned


def _without(model: nn.Module, blocks: tuple[str, ...], branches: Collection[str]) -> nn.Module:
    network = copy.deepcopy(model)
    drop_blocks(network, blocks, branches)
    return network


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_derived_is_what_runs_without_the_blocks(name: str) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    blocks = [block.name for block in graph.blocks if block.droppable]
    whole = record_operations(model, ((inputs,), {}), blocks)
    assert [span.name for span in whole.spans] == blocks
    for count in range(len(blocks) + 1):
        for dropped in combinations(blocks, count):
            network = _without(model, dropped, graph.branches)
            recorded = record_operations(network, ((inputs,), {}))
            assert whole.without(dropped, graph.branches) == recorded


def test_operations_are_numbered_by_what_they_return() -> None:
    model, inputs = seasoned("Mlp")
    found = record_operations(model, ((inputs,), {})).operations
    assert [(op.kind, op.inputs, op.owner) for op in found] == [
        ("linear", (-1,), "fc1"),
        ("relu", (0,), ""),
        ("linear", (1,), "fc2"),
        ("relu", (2,), ""),
        ("linear", (3,), "fc3"),
    ]
    assert [op.outputs for op in found] == [1] * 5


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.ReLU6(), "relu6"),
        (nn.ReLU6(inplace=True), "relu6"),
        (nn.Hardtanh(0.0, 2.0), "relu6"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.Hardtanh(0.2, 1.0), "hardtanh"),
    ],
)
def test_a_hardtanh_from_zero_on_is_told_apart(layer: nn.Module, kind: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), layer).eval()
    found = record_operations(model, ((torch.randn(3, 2),), {})).operations
    assert [op.kind for op in found] == ["linear", kind]


class _Block(nn.Module):
    def __init__(self, leak: dict[str, Tensor] | None = None, inplace: bool = False) -> None:
        super().__init__()
        self.conv, self.leak, self.inplace = nn.Conv2d(3, 3, 1), leak, inplace

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace:
            functional.relu(x, inplace=True)
        y = self.conv(x)
        if self.leak is not None:
            self.leak["inside"] = y
        return x + y


class _Leaking(nn.Module):
    """Reads a tensor from inside a block after it."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf: dict[str, Tensor] = {}
        self.stem, self.block = nn.Conv2d(3, 3, 1), _Block(self.shelf)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return x + self.shelf["inside"]


class _InPlace(nn.Module):
    """Reads after a block what the block has changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 3, 1), _Block(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.block(x) * x


@pytest.mark.parametrize("make", [_Leaking, _InPlace])
def test_what_reads_from_inside_a_block_is_not_derived(make: type[nn.Module]) -> None:
    inputs = ((torch.randn(2, 3, 4, 4),), {})
    found = record_operations(make(), inputs, ["block"])
    assert found.without(()) == OperationTrace(operations=found.operations, outputs=found.outputs)
    assert found.without(["block"]) is None


def test_blocks_that_were_not_watched_are_not_derived() -> None:
    model, inputs = seasoned("ResidualNet")
    found = record_operations(model, ((inputs,), {}), ["layer1.1"])
    assert found.without(["layer1.1"]) is not None
    assert found.without(["layer2.1"]) is None


def test_the_model_is_left_alone() -> None:
    model, inputs = seasoned("ResidualNet")
    record_operations(model, ((inputs,), {}), ["layer1.1"])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_owners_are_found_by_identity() -> None:
    model, _ = seasoned("PlainNet")
    assert weight_owners(model)[id(model.conv2.weight)] == "conv2"
    assert norm_owners(model)[id(model.bn2.running_mean)] == "bn2"
    assert norm_owners(nn.BatchNorm2d(3, track_running_stats=False)) == {}


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv1d", (4, 2, 3), {"padding": 1}),
    ("conv1d", (4, 2, 3), {"bias": torch.ones(4), "padding": "same", "dilation": (2,)}),
    ("conv2d", (4, 2, 3, 3), {"stride": 2, "padding": (1, 0)}),
    ("conv2d", (4, 1, 3, 3), {"groups": 2, "padding": [1]}),
    ("conv_transpose2d", (4, 1, 3, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
    ("linear", (4, 2), {"bias": torch.ones(4)}),
    ("linear", (4, 2), {}),
]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(("name", "shape", "settings"), CALLS)
def test_layers_are_called_alike_however_a_call_is_written(
    name: str, shape: tuple[int, ...], settings: dict[str, Any], by_name: bool
) -> None:
    function = getattr(functional, name)
    columns = shape[0] if "transpose" in name else shape[1] * settings.get("groups", 1)
    x = torch.randn(3, *([columns] if name != "linear" else []), *[8] * (len(shape) - 2))
    x, weight = torch.randn(3, columns) if name == "linear" else x, torch.randn(shape)
    given = (x,) if by_name else (x, weight)
    named = {"weight": weight, **settings} if by_name else settings
    args, kwargs = layer_arguments(name, given, named)
    assert not kwargs
    assert args[1] is weight
    assert len(args) == (3 if name == "linear" else 8 if "transpose" in name else 7)
    assert all(isinstance(value, (str, tuple)) for value in args[3:6])
    torch.testing.assert_close(function(*args), function(*given, **named))
    assert layer_arguments(name, args, {}) == (args, {})


def test_sequences_are_made_anew_of_their_own_kind() -> None:
    pair = namedtuple("pair", "x y")(torch.ones(1), torch.zeros(1))
    found = like(pair, [1, 2])
    assert (type(found), found.x, found.y) == (type(pair), 1, 2)  # type: ignore[attr-defined]
    extreme = torch.ones(2, 3).max(dim=1)
    assert like(extreme, [*extreme]).values is extreme.values  # type: ignore[attr-defined]
    assert like([1], [2, 3]) == [2, 3]
    assert like((1,), [2]) == (2,)
