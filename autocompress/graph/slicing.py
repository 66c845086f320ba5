"""Remove channels from modules, in place."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch_pruning.ops import OPTYPE, module2type
from torch_pruning.pruner.function import PrunerBox

from autocompress.errors import InvalidInputError, WrongTypeError, explain
from autocompress.graph.structure import ChannelGroup

Axis = Literal["out", "in"]

SLICEABLE = frozenset(
    {
        *(OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR),
        *(OPTYPE.BN, OPTYPE.LN, OPTYPE.GN, OPTYPE.IN, OPTYPE.PRELU),
    }
)
"""Kinds of modules whose channels can be removed."""


def remove_channels(module: nn.Module, axis: Axis, positions: Sequence[int]) -> None:
    """Remove channels along one axis of one module, in place.

    Weights, biases and running statistics are cut, and the module's own
    counts (`out_channels`, `num_features`, ...) follow. A depthwise
    convolution and a normalisation lose input and output together.

    Args:
        module: A convolution, linear layer, normalisation or PReLU.
        axis: "out" for what it produces or carries, "in" for what it consumes.
        positions: Positions along the axis, any order, without repetition.

    Raises:
        WrongTypeError: If the module's channels cannot be removed.
        InvalidInputError: If a position does not exist or none would be left.

    Example:
        >>> layer = nn.Linear(4, 3)
        >>> remove_channels(layer, "out", [0, 2])
        >>> layer.weight.shape
        torch.Size([1, 4])
    """
    kind = module2type(module)
    if kind not in SLICEABLE:
        raise WrongTypeError(
            explain(
                f"module {type(module).__name__}",
                expected="a convolution, linear layer, normalisation or PReLU",
                got="something else",
                remedy="leave its group whole",
            )
        )
    pruner = PrunerBox[kind]
    size = pruner.get_out_channels(module) if axis == "out" else pruner.get_in_channels(module)
    if size is None or not positions:  # a PReLU with one slope for all channels
        return
    if len(set(positions)) >= size or min(positions) < 0 or max(positions) >= size:
        raise InvalidInputError(
            explain(
                f"positions to remove from {type(module).__name__}",
                expected=f"fewer than {size}, each in 0 to {size - 1}",
                got=f"{len(set(positions))} in {min(positions)} to {max(positions)}",
                remedy="keep at least one channel",
            )
        )
    trainable = {name: p.requires_grad for name, p in module.named_parameters(recurse=False)}
    cut = pruner.prune_out_channels if axis == "out" else pruner.prune_in_channels
    with torch.no_grad():
        cut(module, sorted(set(positions)))
    for name, parameter in module.named_parameters(recurse=False):
        parameter.requires_grad_(trainable[name])


def removed_positions(
    removals: Iterable[tuple[ChannelGroup, Sequence[int]]],
) -> dict[tuple[str, Axis], tuple[int, ...]]:
    """Collect what several groups remove from each axis of each module.

    Args:
        removals: Groups, each with the channels of the group that go.

    Returns:
        Positions on the original module by (module, axis), ascending.
    """
    positions: dict[tuple[str, Axis], set[int]] = {}
    for group, channels in removals:
        for member in group.members:
            taken = positions.setdefault((member.module, member.axis), set())
            for channel in channels:
                taken.update(member.indices[channel])
    return {key: tuple(sorted(taken)) for key, taken in positions.items()}


def remove_positions(model: nn.Module, positions: Mapping[tuple[str, Axis], Sequence[int]]) -> None:
    """Cut every named axis once, in place; modules that are gone are skipped.

    Args:
        model: The model, blocks perhaps already dropped.
        positions: As `removed_positions` returns them.
    """
    modules = dict(model.named_modules())
    for (name, axis), taken in positions.items():
        if name in modules:
            remove_channels(modules[name], axis, taken)


def prune_groups(model: nn.Module, removals: Iterable[tuple[ChannelGroup, Sequence[int]]]) -> None:
    """Remove channels of groups from a model, in place.

    Args:
        model: The model; blocks may already be dropped from it.
        removals: Groups, each with the channels of the group that go.
    """
    remove_positions(model, removed_positions(removals))
