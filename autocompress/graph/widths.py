"""Widths of the layers of a compressed model, without building it."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import Candidate
from autocompress.core.population import Population
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import (
    ChannelGroup,
    Layer,
    ModelGraph,
    loses_whole_groups,
)

IntArray = NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthColumns:
    """What each of `n` candidates leaves of one layer; `n` values each, as of `LayerWidths`.

    Attributes:
        standing: Whether the layer is left at all.
        in_channels: Input channels or features.
        out_channels: Output channels or features.
        macs: Multiply-accumulates for one example.
        parameters: Number of weights and biases.
    """

    standing: NDArray[np.bool_]
    in_channels: IntArray
    out_channels: IntArray
    macs: IntArray
    parameters: IntArray


def removed_channels(group: ChannelGroup, pruning_ratio: float) -> int:
    """Count the channels that a ratio removes; one always stays.

    Args:
        group: The group.
        pruning_ratio: Fraction removed, [0, 1), as achieved after rounding.
    """
    return int(removed_columns(group, np.array(pruning_ratio)))


def removed_columns(group: ChannelGroup, ratios: NDArray[np.float64]) -> IntArray:
    """Count the same for an array of ratios."""
    removed = np.rint(ratios * group.channels).astype(np.int64)
    return np.minimum(removed, group.channels - 1)


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
    columns = all_widths(graph, Population.of([candidate]))
    return {
        name: LayerWidths(
            in_channels=int(layer.in_channels[0]),
            out_channels=int(layer.out_channels[0]),
            macs=int(layer.macs[0]),
            parameters=int(layer.parameters[0]),
        )
        for name, layer in columns.items()
        if layer.standing[0]
    }


def all_widths(graph: ModelGraph, population: Population) -> dict[str, WidthColumns]:
    """Compute what many candidates leave of every layer.

    Args:
        graph: The structure of the original model.
        population: n candidates: which groups are pruned and which blocks are dropped.

    Returns:
        By name, in order of execution; all layers.

    Raises:
        InvalidInputError: If a group or block is unknown or cannot be cut.
    """
    standing: dict[str, NDArray[np.bool_]] = {}
    everywhere = np.ones(len(population), dtype=bool)
    for name, gone in population.dropped.items():
        for layer in graph.block(name).layers:
            standing[layer] = standing.get(layer, everywhere) & ~gone
    cuts: dict[str, tuple[IntArray | int, IntArray | int]] = {}
    for name, ratios in population.ratios.items():
        removed = removed_columns(_prunable(graph, name), ratios)
        for layer, ins, outs in _per_channel(graph)[name]:
            before = cuts.get(layer, (0, 0))
            cuts[layer] = (before[0] + ins * removed, before[1] + outs * removed)
    return {
        layer.name: _narrowed(
            layer, *cuts.get(layer.name, (0, 0)), standing.get(layer.name, everywhere)
        )
        for layer in graph.layers
    }


def _prunable(graph: ModelGraph, name: str) -> ChannelGroup:
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
    return group


@lru_cache(maxsize=8)
def _per_channel(graph: ModelGraph) -> dict[str, tuple[tuple[str, int, int], ...]]:
    """For each prunable group, list the layers that shrink with it.

    Returns:
        Layer names, and by how many inputs and outputs for each channel.
    """
    return {
        group.name: tuple(
            (member.module, len(member.indices[0]), 0)
            if member.axis == "in"
            else (member.module, 0, len(member.indices[0]))
            for member in group.members
            if member.module in graph.layer_by_name and member.axis in ("in", "out")
        )
        for group in graph.groups
        if group.prunable
    }


def _narrowed(
    layer: Layer, ins: IntArray | int, outs: IntArray | int, standing: NDArray[np.bool_]
) -> WidthColumns:
    """Take inputs and outputs off a layer; all divisions are exact.

    The axes of a weight depend on the layer's type. Where whole groups of a
    grouped convolution go, inputs go with outputs.
    """
    first, second = layer.weight_shape[0], layer.weight_shape[1] * layer.groups
    whole_in, whole_out = (first, second) if layer.inputs_first else (second, first)
    out_channels = np.zeros(len(standing), dtype=np.int64) + (whole_out - outs)
    if loses_whole_groups(layer.weight_shape[1], layer.groups):
        in_channels = _share(whole_in, out_channels, whole_out)
        before, after = whole_out, out_channels
    else:
        in_channels = np.zeros(len(standing), dtype=np.int64) + (whole_in - ins)
        before, after = whole_out * whole_in, out_channels * in_channels
    weights = math.prod(layer.weight_shape)
    biases = out_channels if layer.parameters > weights else 0
    return WidthColumns(
        standing=standing,
        in_channels=in_channels,
        out_channels=out_channels,
        macs=_share(layer.macs, after, before),
        parameters=_share(weights, after, before) + biases,
    )


def _share(number: int, part: IntArray, whole: int) -> IntArray:
    """Return number x part / whole, reduced first: 64 bits would not hold every product."""
    common = math.gcd(number, whole) or 1
    return number // common * part // max(whole // common, 1)
