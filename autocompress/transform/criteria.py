"""How channels are ranked within a group: criteria by name."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError
from autocompress.graph.structure import ChannelGroup

Criterion = Callable[[nn.Module, ChannelGroup], Tensor]


def l1_scores(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Score channels by the L1 norm of the filters that produce them.

    Summed over every convolution and linear layer of the group (Li et al.
    2017, "Pruning Filters for Efficient ConvNets"); members that the model no
    longer has, in dropped blocks, do not count.

    Args:
        model: The model, whose weights are read.
        group: The channels to score.

    Returns:
        One score per channel; the smallest go first.
    """
    scores = torch.zeros(group.channels)
    modules = dict(model.named_modules())
    for member in group.members:
        weight = getattr(modules.get(member.module), "weight", None)
        if member.axis != "out" or weight is None or weight.dim() < 2:
            continue
        if getattr(modules[member.module], "transposed", False):  # inputs come first
            weight = weight.transpose(0, 1)
        norms = weight.detach().float().abs().flatten(1).sum(dim=1).cpu()
        scores += torch.stack([norms[list(positions)].sum() for positions in member.indices])
    return scores


CRITERIA: Mapping[str, Criterion] = {"l1": l1_scores}
"""Criteria by the names that candidates use."""


def find_criterion(name: str) -> Criterion:
    """Look a criterion up.

    Raises:
        InvalidInputError: If there is none of that name.
    """
    if name not in CRITERIA:
        raise InvalidInputError(unknown_name("criterion", name, CRITERIA))
    return CRITERIA[name]
