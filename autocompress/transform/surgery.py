"""Cut a copy of a model: drop blocks and remove channels."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.blocks import Passthrough
from autocompress.graph.slicing import axis_size, remove_channels
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import removed_channels
from autocompress.transform.criteria import find_criterion
from autocompress.transform.record import Cut


def plan_cuts(model: nn.Module, graph: ModelGraph, candidate: Candidate) -> tuple[Cut, ...]:
    """Choose the channels that a candidate removes.

    Args:
        model: The original model; its weights rank the channels.
        graph: Its structure.
        candidate: The candidate, canonical.

    Returns:
        The cuts, one per module and axis, dropped blocks left out.

    Raises:
        InvalidInputError: If a group or block is unknown or cannot be cut.
    """
    score = find_criterion(candidate.criterion)
    for name in candidate.dropped_blocks:
        block = graph.block(name)
        if not block.droppable:
            raise InvalidInputError(
                explain(
                    f"block '{name}'",
                    expected="a droppable block",
                    got=block.reason,
                    remedy="leave it out of dropped_blocks",
                )
            )
    modules = dict(model.named_modules())
    removed: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for name, ratio in candidate.pruning_ratios.items():
        group = graph.group(name)
        if not group.prunable:
            raise InvalidInputError(
                explain(
                    f"channel group '{name}'",
                    expected="a prunable group",
                    got=group.reason,
                    remedy="leave it out of pruning_ratios",
                )
            )
        count = removed_channels(group, ratio)
        if count == 0:
            continue
        members = tuple(m for m in group.members if not candidate.drops(m.module))
        scores = score(model, replace(group, members=members))
        doomed = torch.argsort(scores, stable=True)[:count].tolist()
        for member in members:
            key = (member.module, member.axis)
            positions = removed.setdefault(key, set())
            positions.update(p for channel in doomed for p in member.indices[channel])
            sizes[key] = axis_size(modules[member.module], member.axis)
    return tuple(
        Cut(module=module, axis=axis, size=sizes[module, axis], removed=tuple(sorted(positions)))
        for (module, axis), positions in removed.items()
    )


def cut_model(model: nn.Module, dropped: Sequence[str], cuts: Sequence[Cut]) -> nn.Module:
    """Copy a model, replace blocks by the identity and remove channels.

    Args:
        model: The original; untouched.
        dropped: Names of the blocks to replace.
        cuts: What to remove.

    Returns:
        The cut copy, in the original's mode and on its device.

    Raises:
        InvalidInputError: If a cut does not fit this model.
    """
    network = copy.deepcopy(model)
    modules = dict(network.named_modules())
    for name in dropped:
        if name not in modules:
            raise InvalidInputError(unknown_name("block", name, modules))
        network.set_submodule(name, Passthrough())
    modules = dict(network.named_modules())
    for cut in cuts:
        module = modules.get(cut.module)
        if module is None or axis_size(module, cut.axis) != cut.size:
            raise InvalidInputError(
                explain(
                    f"surgery of '{cut.module}'",
                    expected=f"a module whose '{cut.axis}' axis has {cut.size} channels",
                    got="none" if module is None else axis_size(module, cut.axis),
                    remedy="give the architecture that the record was made from",
                )
            )
        remove_channels(module, cut.axis, cut.removed)
    return network
