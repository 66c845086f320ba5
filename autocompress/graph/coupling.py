"""Channel groups: which axes of which modules shrink together."""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning._helpers import GroupItem
from torch_pruning.dependency.group import Group
from torch_pruning.ops import OPTYPE, module2type

from autocompress.errors import TraceError, explain
from autocompress.graph.inputs import ModelInputs, one_line, output_tensors
from autocompress.graph.slicing import SLICEABLE
from autocompress.graph.structure import ChannelGroup, GroupMember, Layer

_OPERATORS = frozenset(
    {
        *(OPTYPE.ELEMENTWISE, OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.RESHAPE),
        *(OPTYPE.UNBIND, OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.OUTPUT),
    }
)
"""Nodes without channels of their own; the mask check judges what they do."""


def channel_groups(
    model: nn.Module, inputs: ModelInputs, layers: Sequence[Layer], shared: Collection[str]
) -> tuple[ChannelGroup, ...]:
    """Find the channels that must be pruned together.

    Coupling follows DepGraph (Fang et al. 2023, arXiv:2301.12900). What it
    cannot express exactly is refused here; the rest is for the mask check.

    Args:
        model: A private copy in evaluation mode; left as it is.
        inputs: What it is called with.
        layers: The layers that ran, in order of execution.
        shared: Names of modules that run more than once or share a weight.

    Returns:
        The groups in order of execution.

    Raises:
        TraceError: If the coupling cannot be followed.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    coupling = _Coupling(model, inputs, shared)
    modules = dict(model.named_modules())
    groups: dict[str, ChannelGroup] = {}
    covered: set[str] = set()
    deferred = []
    for layer in layers:
        if layer.name in covered or modules[layer.name] not in coupling.graph.module2node:
            continue
        group = coupling.group(layer.name, modules[layer.name])
        if _is_even(group):
            groups[layer.name] = group
            covered |= _carriers(group)
        else:  # other roots may split it evenly, as the branches of a concatenation do
            deferred.append(group)
    for group in deferred:
        if group.name not in covered:
            groups[group.name] = _refused(group, "couples channels unevenly")
            covered |= _carriers(group)
    ordered = [groups[layer.name] for layer in layers if layer.name in groups]
    return without_overlaps(ordered)


class _Coupling:
    """The dependency graph of one model, read group by group."""

    def __init__(self, model: nn.Module, inputs: ModelInputs, shared: Collection[str]) -> None:
        self.shared = shared
        self.name: Mapping[nn.Module, str] = {m: name for name, m in model.named_modules()}
        self.graph = DependencyGraph()
        self.outputs: list[object] = []
        try:
            with torch.enable_grad():
                self.graph.build_dependency(
                    model,
                    inputs,
                    forward_fn=lambda module, given: given.run(module),
                    output_transform=self._remember_outputs,
                    verbose=False,
                )
        except Exception as error:
            raise _untraceable(model, error) from error

    def _remember_outputs(self, output: object) -> list[Tensor]:
        tensors = [t for t in output_tensors(output) if t.grad_fn is not None]
        self.outputs = [tensor.grad_fn for tensor in tensors]
        return tensors

    def _is_out(self, item: GroupItem) -> bool:
        """Whether a module's outputs shrink; what carries channels through counts too."""
        return bool(self.graph.is_out_channel_pruning_fn(item.dep.handler))

    def group(self, name: str, root: nn.Module) -> ChannelGroup:
        """Read the group of all output channels of a root layer."""
        pruner = self.graph.get_pruner_of_module(root)
        channels = pruner.get_out_channels(root)
        try:
            found = self.graph.get_pruning_group(
                root, pruner.prune_out_channels, list(range(channels))
            )
        except Exception as error:
            raise _untraceable(root, error) from error
        members = []
        for item in found:
            module = item.dep.target.module
            if module2type(module) in SLICEABLE and None not in item.root_idxs:
                members.append(
                    GroupMember(
                        module=self.name[module],
                        axis="out" if self._is_out(item) else "in",
                        indices=_by_channel(item.idxs, item.root_idxs, channels),
                    )
                )
        reason = self._reason(found, members, channels)
        return ChannelGroup(
            name=name,
            channels=channels,
            members=tuple(members),
            prunable=not reason,
            reason=reason,
        )

    def _reason(self, found: Group, members: Sequence[GroupMember], channels: int) -> str:
        """Say why a group cannot be pruned; "" if nothing speaks against it yet."""
        targets = [item.dep.target for item in found]
        produced = [item.dep.target for item in found if self._is_out(item)]
        if any(node.grad_fn in self.outputs for node in produced):
            return "output layer"
        if any(member.module in self.shared for member in members):
            return "shared weights"
        if any(node.type not in SLICEABLE | _OPERATORS for node in targets):
            return "unsupported operator"
        if any(
            None in item.root_idxs or hasattr(item.dep.target.module, "parametrizations")
            for item in found
        ):
            return "unsupported operator"
        if any(_is_grouped(node.module) for node in targets):
            return "grouped convolution"
        return "" if channels > 1 else "has a single channel"


def _by_channel(
    positions: Sequence[int], channels: Sequence[int], count: int
) -> tuple[tuple[int, ...], ...]:
    """Turn aligned (position, channel) lists into positions per channel."""
    indices: list[list[int]] = [[] for _ in range(count)]
    for position, channel in zip(positions, channels, strict=True):
        indices[channel].append(position)
    return tuple(tuple(sorted(taken)) for taken in indices)


def _is_grouped(module: object) -> bool:
    """Tell a grouped convolution from a dense and from a depthwise one."""
    return (
        isinstance(module, nn.modules.conv._ConvNd)
        and module.groups > 1
        and not module.groups == module.in_channels == module.out_channels
    )


def _is_even(group: ChannelGroup) -> bool:
    """Whether every channel takes the same number of positions of a member."""
    return all(len({len(taken) for taken in member.indices}) == 1 for member in group.members)


def _carriers(group: ChannelGroup) -> set[str]:
    return {member.module for member in group.members if member.axis == "out"}


def _refused(group: ChannelGroup, reason: str) -> ChannelGroup:
    return replace(group, prunable=False, reason=group.reason or reason)


def without_overlaps(groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """Refuse every prunable group that cuts where an earlier one cuts.

    Args:
        groups: In order of execution.
    """
    owner: dict[tuple[str, str, int], str] = {}
    kept = []
    for group in groups:
        places = [
            (member.module, member.axis, position)
            for member in group.members
            for position in chain.from_iterable(member.indices)
        ]
        earlier = next((owner[place] for place in places if place in owner), None)
        if group.prunable and earlier is not None:
            group = _refused(group, f"overlaps the group '{earlier}'")
        if group.prunable:
            owner.update((place, group.name) for place in places)
        kept.append(group)
    return tuple(kept)


def _untraceable(module: nn.Module, error: Exception) -> TraceError:
    return TraceError(
        explain(
            f"channels of {type(module).__name__}",
            expected="operations whose gradients can be followed",
            got=one_line(error),
            remedy="move what computes outside of tensors out of the forward pass",
        )
    )
