import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.core.candidate import Candidate
from autocompress.graph.block_check import OTHER_CHANNELS
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model


class Turned(nn.Module):
    """Adds its input, and gives the sum to a convolution of the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.c(x + self.a(functional.relu(x))))


class Plain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.a(functional.relu(x))


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.st, self.blocks = nn.Conv2d(3, width, 3), nn.Sequential(*blocks)
        self.h = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.blocks(self.st(x)).mean((2, 3)))


def test_blocks_between_two_groups_are_not_dropped() -> None:
    graph = trace(Net(Plain(8), Turned(8), Plain(8)), torch.randn(2, 3, 8, 8))
    assert {block.name: block.reason for block in graph.blocks} == {
        "blocks.0": "",
        "blocks.1": OTHER_CHANNELS,
        "blocks.2": "",
    }


@pytest.mark.parametrize("ratios", [{"st": 0.5}, {"blocks.1.c": 0.5}])
def test_what_is_droppable_runs_with_any_group_pruned(ratios: dict[str, float]) -> None:
    model, x = Net(Plain(8), Turned(8), Plain(8)), torch.randn(2, 3, 8, 8)
    graph = trace(model, x)
    dropped = tuple(block.name for block in graph.blocks if block.droppable)
    candidate = Candidate(pruning_ratios=ratios, dropped_blocks=dropped)
    assert compress_model(model, graph, candidate, ((x,), {}))(x).shape == (2, 5)


def test_an_end_that_cannot_be_pruned_counts_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Turned(8))  # the model returns the block's output
    block = trace(model, torch.randn(2, 3, 8, 8)).block("1")
    assert (block.droppable, block.reason) == (False, OTHER_CHANNELS)
