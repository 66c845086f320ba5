"""Widths of the layers of a compressed model, without building it."""

import math
from dataclasses import dataclass
from functools import lru_cache

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import (
    ChannelGroup,
    Layer,
    ModelGraph,
    loses_whole_groups,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWidths:
    """What is left of one layer.

    Attributes:
        in_channels: Input channels or features.
        out_channels: Output channels or features.
        macs: Multiply-accumulates for one example.
        parameters: Number of weights and biases.
    """

    in_channels: int
    out_channels: int
    macs: int
    parameters: int


def removed_channels(group: ChannelGroup, pruning_ratio: float) -> int:
    """Count the channels that a ratio removes; one always stays.

    Args:
        group: The group.
        pruning_ratio: Fraction removed, [0, 1), as achieved after rounding.
    """
    return min(round(pruning_ratio * group.channels), group.channels - 1)


def pruned_widths(graph: ModelGraph, candidate: Candidate) -> dict[str, LayerWidths]:
    """Compute what a candidate leaves of every layer.

    Args:
        graph: The structure of the original model.
        candidate: Which groups are pruned and which blocks are dropped.

    Returns:
        The widths of the layers that are left, by name, in order of execution.

    Raises:
        InvalidInputError: If a group or block is unknown or cannot be cut.
    """
    plan = _plan(graph)
    widths = dict(plan.whole)
    for name in candidate.dropped_blocks:
        for layer in graph.block(name).layers:
            widths.pop(layer, None)
    cuts: dict[str, tuple[int, int]] = {}
    for name, ratio in candidate.pruning_ratios.items():
        group = graph.group(name)
        if not group.prunable:
            raise InvalidInputError(
                explain(
                    f"channel group '{name}'",
                    expected="a prunable group",
                    got=f"one that is kept whole: {group.reason}",
                    remedy="leave it out of pruning_ratios",
                )
            )
        removed = removed_channels(group, ratio)
        for layer, ins, outs in plan.per_channel[name]:
            before = cuts.get(layer, (0, 0))
            cuts[layer] = (before[0] + ins * removed, before[1] + outs * removed)
    for layer, (ins, outs) in cuts.items():
        if layer in widths:
            widths[layer] = _narrowed(graph.layer_by_name[layer], widths[layer], ins, outs)
    return widths


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What does not depend on the candidate.

    Attributes:
        whole: Widths of the unpruned layers.
        per_channel: For each prunable group, the layers that shrink with it,
            and by how many inputs and outputs for each channel.
    """

    whole: dict[str, LayerWidths]
    per_channel: dict[str, tuple[tuple[str, int, int], ...]]


@lru_cache(maxsize=8)
def _plan(graph: ModelGraph) -> _Plan:
    per_channel = {}
    for group in graph.groups:
        if group.prunable:
            per_channel[group.name] = tuple(
                (member.module, len(member.indices[0]), 0)
                if member.axis == "in"
                else (member.module, 0, len(member.indices[0]))
                for member in group.members
                if member.module in graph.layer_by_name and member.axis in ("in", "out")
            )
    return _Plan(
        whole={layer.name: _whole(layer) for layer in graph.layers}, per_channel=per_channel
    )


def _whole(layer: Layer) -> LayerWidths:
    """Read the widths of a layer off its weight, whose axes depend on its type."""
    first, second = layer.weight_shape[0], layer.weight_shape[1] * layer.groups
    return LayerWidths(
        in_channels=first if layer.inputs_first else second,
        out_channels=second if layer.inputs_first else first,
        macs=layer.macs,
        parameters=layer.parameters,
    )


def _narrowed(layer: Layer, whole: LayerWidths, ins: int, outs: int) -> LayerWidths:
    """Take inputs and outputs off a layer; all divisions are exact.

    Where whole groups of a grouped convolution go, inputs go with outputs.
    """
    out_channels = whole.out_channels - outs
    in_channels = whole.in_channels - ins
    weights = math.prod(layer.weight_shape)
    before, after = whole.out_channels * whole.in_channels, out_channels * in_channels
    if loses_whole_groups(layer.weight_shape[1], layer.groups):
        in_channels = whole.in_channels * out_channels // whole.out_channels
        before, after = whole.out_channels, out_channels
    biases = out_channels if layer.parameters > weights else 0
    return LayerWidths(
        in_channels=in_channels,
        out_channels=out_channels,
        macs=layer.macs * after // before,
        parameters=weights * after // before + biases,
    )
