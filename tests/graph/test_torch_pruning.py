"""Where torch-pruning's groups pass the mask check, ours are the same."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autocompress.graph.inputs import ModelInputs, plain_copy
from autocompress.graph.mask_check import check_groups
from autocompress.graph.structure import ChannelGroup
from autocompress.graph.tracing import trace
from depgraph import reference_groups
from zoo import ConcatNet, InvertedResidualNet, Mlp, OptionANet, PlainNet, ResidualNet

Units = set[frozenset[tuple[str, str, int]]]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "plain": (PlainNet, (3, 16, 16), 3),
    "residual": (lambda: ResidualNet(8, 2), (3, 16, 16), 6),
    "inverted residual": (lambda: InvertedResidualNet(8), (3, 16, 16), 5),
    "dense": (lambda: ConcatNet(4), (3, 8, 8), 3),
    "zero-padded": (lambda: OptionANet(4, 2), (3, 16, 16), 6),
    "linear": (Mlp, (12,), 2),
}
"""Networks, the shape of an example, and how many of torch-pruning's groups are right."""


def _units(group: ChannelGroup) -> Units:
    """Return what goes with each channel: sets of (module, axis, position)."""
    return {
        frozenset(
            (member.module, member.axis, position)
            for member in group.members
            for position in member.indices[channel]
        )
        for channel in range(group.channels)
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_those_of_torch_pruning_where_these_are_right(name: str) -> None:
    make, shape, right = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(2, *shape)
    reference = reference_groups(plain_copy(model).requires_grad_(True), x)
    checked = check_groups(plain_copy(model), ModelInputs.of(x), tuple(reference.values()))
    passed = [group for group in checked if group.prunable]
    assert len(passed) == right
    ours = trace(model, x).group_by_name
    for group in passed:
        assert ours[group.name].prunable
        assert _units(ours[group.name]) == _units(group), group.name


def test_zero_padding_shifts_the_channels_of_a_trunk() -> None:
    torch.manual_seed(0)
    model, x = OptionANet(4, 2).eval(), torch.randn(2, 3, 16, 16)
    theirs = reference_groups(plain_copy(model).requires_grad_(True), x)["conv1"]
    (judged,) = check_groups(plain_copy(model), ModelInputs.of(x), (theirs,))
    assert not judged.prunable  # it takes channel c of the wide layers for channel c of the trunk
    ours = trace(model, x).group("conv1")
    assert ours.prunable
    positions = {(m.module, m.axis): m.indices for m in ours.members}
    assert positions["layer2.0.conv2", "out"] == ((2,), (3,), (4,), (5,))
    assert positions["layer3.0.conv2", "out"] == ((6,), (7,), (8,), (9,))
