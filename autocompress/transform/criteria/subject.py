"""What a criterion reads: one coupled group of one model, and what was observed of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from autocompress.graph.recording import LAYER_TYPES
from autocompress.graph.structure import ChannelGroup, GroupMember
from autocompress.transform.criteria.evidence import Evidence
from autocompress.transform.criteria.filters import filter_key, filter_rows, input_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A group to score.

    Attributes:
        modules: The modules of the original model, by name.
        group: The group; members inside dropped blocks are left out of it.
        evidence: What was observed of the model on data.
        seed: Draws random scores.
    """

    modules: Mapping[str, nn.Module]
    group: ChannelGroup
    evidence: Evidence = field(default_factory=Evidence)
    seed: int = 0

    def blank(self) -> Tensor:
        """Return a zero for every channel."""
        return torch.zeros(self.group.channels, dtype=torch.float64)

    def producers(self) -> Iterator[tuple[GroupMember, Tensor]]:
        """Yield the layers that produce the channels, with one row per filter."""
        for member in self.group.members:
            module = self.modules[member.module]
            key = filter_key(module, member.axis)
            if key:
                yield member, filter_rows(module, module.get_parameter(key).detach())

    def readers(self) -> Iterator[tuple[GroupMember, Tensor]]:
        """Yield the layers that read the channels, with one row of weights per input."""
        for member in self.group.members:
            module = self.modules[member.module]
            if member.axis == "in" and isinstance(module, LAYER_TYPES):
                yield member, input_rows(module, module.get_parameter("weight").detach())

    def scales(self) -> Iterator[tuple[GroupMember, Tensor]]:
        """Yield the batch norms that the channels pass through, with their scales, or ones."""
        for member in self.group.members:
            module = self.modules[member.module]
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and member.axis == "out":
                scale = module.weight
                whole = torch.ones(module.num_features) if scale is None else scale.detach().cpu()
                yield member, whole

    def consumers(self, observed: Mapping[str, Tensor]) -> Iterator[tuple[GroupMember, Tensor]]:
        """Yield the layers that read the channels, with what was observed of their inputs."""
        for member in self.group.members:
            if member.axis == "in" and member.module in observed:
                yield member, observed[member.module]


class Score(Protocol):
    """Scores the channels of a group; the lowest goes first."""

    def __call__(self, subject: Subject) -> Tensor:
        """Return one float64 score >= 0 per channel."""
        ...


def sum_by_channel(values: Tensor, member: GroupMember) -> Tensor:
    """Sum what belongs to the positions of each channel.

    Args:
        values: `... x positions` along the member's axis.
        member: Tells the positions of each channel.

    Returns:
        `... x channels`, float64.

    Example:
        >>> member = GroupMember(module="fc", axis="in", indices=((0, 1), (2, 3)))
        >>> sum_by_channel(torch.tensor([1.0, 2.0, 3.0, 4.0]), member)
        tensor([3., 7.], dtype=torch.float64)
    """
    channels = [channel for channel, taken in enumerate(member.indices) for _ in taken]
    positions = list(chain.from_iterable(member.indices))
    sums = torch.zeros(*values.shape[:-1], len(member.indices), dtype=torch.float64)
    return sums.index_add_(-1, torch.tensor(channels), values[..., positions].double())
