"""Properties that hold for any small network: masked equals pruned."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from autocompress.graph.inputs import ModelInputs, plain_copy
from autocompress.graph.mask_check import mask_positions, randomise
from autocompress.graph.slicing import prune_groups, removed_positions
from autocompress.graph.tracing import trace
from zoo import SqueezeExcite, conv_bn

FEW = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class RandomNet(nn.Module):
    """A stem, then steps of several kinds at random, then a classifier; input `n x 3 x 8 x 8`."""

    def __init__(self, width: int, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.kinds = [kind for kind, _ in steps]
        self.amounts = [amount for _, amount in steps]
        self.steps = nn.ModuleList()
        for kind, amount in steps:
            step, width = _step(kind, amount, width)
            self.steps.append(step)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for kind, step in zip(self.kinds, self.steps, strict=True):
            if kind == "residual":
                x = functional.relu(x + step(x))
            elif kind == "dense":
                x = torch.cat([x, functional.relu(step(x))], 1)
            elif kind == "mirrored":
                x = torch.cat([functional.relu(step(x)), x], 1)
            else:
                x = functional.silu(step(x))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Padded(nn.Module):
    """A convolution beside a shortcut padded with zeros on both sides of the channels."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.body = conv_bn(width, width + 2 * padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))


def _step(kind: str, amount: int, width: int) -> tuple[nn.Module, int]:
    """Build one step; return it and the width behind it."""
    if kind == "residual":
        hidden = 2 * amount
        body = nn.Sequential(conv_bn(width, hidden, kernel=1), nn.ReLU(), conv_bn(hidden, width))
        return body, width
    if kind in ("dense", "mirrored"):
        return conv_bn(width, 2 * amount), width + 2 * amount
    if kind == "grouped":
        groups = max(g for g in range(1, amount + 1) if width % g == 0)
        return conv_bn(width, width * 2, groups=groups), width * 2
    if kind == "depthwise":
        return nn.Sequential(conv_bn(width, width, groups=width), SqueezeExcite(width, 3)), width
    if kind == "normed":
        groups = max(g for g in range(1, amount + 2) if width % g == 0)
        return nn.Sequential(nn.Conv2d(width, width, 1), nn.GroupNorm(groups, width)), width
    return Padded(width, amount), width + 2 * amount


KINDS = ("residual", "dense", "mirrored", "grouped", "depthwise", "normed", "padded")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4)), min_size=1, max_size=4)


def _check(width: int, steps: list[tuple[str, int]], seed: int) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, x = RandomNet(2 * width, steps), torch.randn(4, 3, 8, 8)
    reference = plain_copy(model)
    randomise(reference, ModelInputs.of(x), generator)
    graph = trace(reference, x)
    assert all(group.prunable or group.reason for group in graph.groups)
    assert not any("check" in group.reason or "run" in group.reason for group in graph.groups)
    removals = []
    for group in graph.groups:
        if group.prunable:
            order = torch.randperm(group.channels, generator=generator).tolist()
            removals.append(
                (group, order[: torch.randint(group.channels, (1,), generator=generator)])
            )
    masked, pruned = copy.deepcopy(reference), copy.deepcopy(reference)
    mask_positions(masked, {k: v for k, v in removed_positions(removals).items() if v})
    prune_groups(pruned, removals)
    with torch.no_grad():
        expected, got = masked(x), pruned(x)
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@FEW
@given(width=st.integers(2, 6), steps=STEPS, seed=st.integers(0, 99))
def test_pruned_equals_masked(width: int, steps: list[tuple[str, int]], seed: int) -> None:
    _check(width, steps, seed)


@pytest.mark.slow
@MANY
@given(width=st.integers(2, 6), steps=STEPS, seed=st.integers(0, 99))
def test_pruned_equals_masked_often(width: int, steps: list[tuple[str, int]], seed: int) -> None:
    _check(width, steps, seed)
