import copy
from collections.abc import Collection
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.blocks import drop_blocks
from autocompress.graph.operations import (
    OperationTrace,
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
    assert found.without(()) == OperationTrace(operations=found.operations)
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
