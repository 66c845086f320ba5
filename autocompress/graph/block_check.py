"""Prove blocks: a model that lost them can be pruned, whatever the groups."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from autocompress.core.candidate import is_inside
from autocompress.graph.blocks import drop_blocks
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.slicing import prune_groups
from autocompress.graph.structure import Block, ChannelGroup

OTHER_CHANNELS = "its output has other channels than its input"


def check_blocks(
    model: nn.Module,
    inputs: ModelInputs,
    groups: Sequence[ChannelGroup],
    blocks: Sequence[Block],
) -> tuple[Block, ...]:
    """Keep droppable only those blocks without which every choice of channels runs.

    The identity ties what a block takes to what it returns. Where these are
    channels of two groups, of which one may be pruned and the other not, it
    does not fit. Groups are therefore pruned by the digits of their numbers,
    so that of any two one is once pruned alone, in a model without the blocks.

    Args:
        model: A private copy in evaluation mode; left as it is.
        inputs: What it is called with.
        groups: Its groups, as the mask check left them.
        blocks: Its blocks.

    Returns:
        The blocks, those that fail with `droppable=False` and the reason.
    """
    sound = [block.name for block in blocks if block.droppable and not block.is_branch]
    sets = list(_separating([group for group in groups if group.prunable]))
    if not sound or _runs_without(model, inputs, sets, sound):
        return tuple(blocks)
    passed = [name for name in sound if _runs_without(model, inputs, sets, [name])]
    return tuple(
        replace(block, droppable=False, reason=OTHER_CHANNELS)
        if block.name in sound and block.name not in passed
        else block
        for block in blocks
    )


def _separating(groups: Sequence[ChannelGroup]) -> Iterator[list[ChannelGroup]]:
    """Yield sets of groups: each group is in one, and of any two, one is in one alone."""
    for digit in range(len(groups).bit_length()):
        yield [group for number, group in enumerate(groups, start=1) if number >> digit & 1]


def _runs_without(
    model: nn.Module,
    inputs: ModelInputs,
    sets: Sequence[Sequence[ChannelGroup]],
    names: Sequence[str],
) -> bool:
    """Tell whether a model without some blocks runs with each set of groups pruned."""
    cut = copy.deepcopy(model)
    drop_blocks(cut, names)
    try:
        expected = [tensor.shape for tensor in inputs.run_alike(cut)]
    except Exception:  # it may need one of several blocks
        return False
    for pruned in sets:
        narrow = copy.deepcopy(cut)
        try:
            prune_groups(narrow, [(_outside(group, names), (0,)) for group in pruned])
            got = [tensor.shape for tensor in inputs.run_alike(narrow)]
        except Exception:  # whatever a layer raises about its widths
            return False
        if got != expected:
            return False
    return True


def _outside(group: ChannelGroup, blocks: Sequence[str]) -> ChannelGroup:
    """Leave out the members of a group that lie in dropped blocks."""
    members = tuple(
        m for m in group.members if not any(is_inside(m.module, block) for block in blocks)
    )
    return replace(group, members=members)
