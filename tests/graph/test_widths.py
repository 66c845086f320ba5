import copy
import random
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.graph.blocks import drop_blocks
from autocompress.graph.slicing import prune_groups
from autocompress.graph.tracing import trace
from autocompress.graph.widths import pruned_widths, removed_channels
from zoo import ConcatNet, GroupedNet, InvertedResidualNet, Mlp, OptionANet, PlainNet, ResidualNet


def _transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 2), nn.Conv2d(6, 2, 1))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (PlainNet, (3, 16, 16)),
        (ResidualNet, (3, 16, 16)),
        (lambda: OptionANet(8, 2), (3, 16, 16)),
        (InvertedResidualNet, (3, 16, 16)),
        (ConcatNet, (3, 8, 8)),
        (Mlp, (12,)),
        (GroupedNet, (3, 8, 8)),
        (_transposed, (3, 8, 8)),
    ],
)
def test_widths_equal_those_of_a_really_pruned_model(
    make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int
) -> None:
    model = make()
    draw = random.Random(seed)
    x = torch.zeros(2, *shape)
    graph = trace(model, x)
    removals, ratios = [], {}
    for group in graph.groups:
        if group.prunable:
            count = draw.randrange(group.channels)
            removals.append((group, draw.sample(range(group.channels), count)))
            ratios[group.name] = count / group.channels
    dropped = [b.name for b in graph.blocks if b.droppable and draw.random() < 0.5]
    pruned = copy.deepcopy(model)
    drop_blocks(pruned, dropped)
    prune_groups(pruned, removals)
    candidate = Candidate(pruning_ratios=ratios, dropped_blocks=tuple(dropped))
    widths = pruned_widths(graph, candidate)
    real = trace(pruned, x)
    assert list(widths) == [layer.name for layer in real.layers]
    for layer in real.layers:
        module, left = pruned.get_submodule(layer.name), widths[layer.name]
        assert left.macs == layer.macs
        assert left.parameters == layer.parameters
        linear = isinstance(module, nn.Linear)
        assert left.in_channels == (module.in_features if linear else module.in_channels)
        assert left.out_channels == (module.out_features if linear else module.out_channels)


def test_masks_of_weights_are_not_counted() -> None:
    class Masked(nn.Conv2d):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__(inputs, outputs, 1)
            self.register_buffer("mask", torch.ones_like(self.weight))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.weight * self.mask, self.bias)

    model = nn.Sequential(Masked(3, 8), Masked(8, 6), nn.Conv2d(6, 2, 1))
    graph = trace(model, torch.zeros(2, 3, 4, 4))
    assert [group.prunable for group in graph.groups] == [True, True, False]
    prune_groups(model, [(graph.group("0"), [0, 1]), (graph.group("1"), [2])])
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 2, 4, 4)
    widths = pruned_widths(graph, Candidate(pruning_ratios={"0": 0.25, "1": 1 / 6}))
    assert [(w.in_channels, w.out_channels) for w in widths.values()] == [(3, 6), (6, 5), (5, 2)]


def test_the_empty_candidate_leaves_all() -> None:
    graph = trace(PlainNet(), torch.zeros(2, 3, 16, 16))
    widths = pruned_widths(graph, Candidate())
    assert {n: w.macs for n, w in widths.items()} == {la.name: la.macs for la in graph.layers}


def test_canonical_candidates_have_the_same_widths() -> None:
    graph = trace(OptionANet(8, 2), torch.zeros(2, 3, 16, 16))
    candidate = Candidate(
        pruning_ratios={"layer1.0.conv1": 0.5, "layer1.1.conv1": 0.0}, dropped_blocks=("layer1.0",)
    )
    assert pruned_widths(graph, candidate) == pruned_widths(graph, candidate.canonical())


def test_unknown_and_unprunable_names_are_refused() -> None:
    graph = trace(OptionANet(8, 1), torch.zeros(2, 3, 16, 16))
    with pytest.raises(InvalidInputError, match="channel group"):
        pruned_widths(graph, Candidate(pruning_ratios={"conv9": 0.5}))
    with pytest.raises(InvalidInputError, match="kept whole"):
        pruned_widths(graph, Candidate(pruning_ratios={"fc": 0.5}))
    with pytest.raises(InvalidInputError, match="block"):
        pruned_widths(graph, Candidate(dropped_blocks=("layer9",)))


def test_one_channel_always_stays() -> None:
    group = trace(Mlp(), torch.zeros(2, 12)).group("fc1")
    assert removed_channels(group, 0.99) == 15
    assert removed_channels(group, 0.5) == 8
    assert removed_channels(group, 0.0) == 0


@pytest.mark.bench
def test_ten_thousand_candidates_take_seconds() -> None:
    graph = trace(OptionANet(16, 9), torch.zeros(2, 3, 32, 32))
    candidate = Candidate(
        pruning_ratios={g.name: 0.5 for g in graph.groups if g.prunable},
        dropped_blocks=("layer1.3", "layer2.4"),
    )
    pruned_widths(graph, candidate)
    start = time.perf_counter()
    for _ in range(1000):
        pruned_widths(graph, candidate)
    assert time.perf_counter() - start < 0.5
