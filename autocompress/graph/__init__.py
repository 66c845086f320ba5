"""Trace a model: layers, coupled channel groups, droppable blocks."""

from autocompress.graph.blocks import Passthrough, drop_blocks
from autocompress.graph.inputs import ModelInputs, output_tensors
from autocompress.graph.slicing import prune_groups, remove_channels, removed_positions
from autocompress.graph.structure import (
    Block,
    ChannelGroup,
    GroupMember,
    Layer,
    ModelGraph,
    Operation,
)
from autocompress.graph.tracing import fingerprint, trace
from autocompress.graph.widths import LayerWidths, pruned_widths, removed_channels

__all__ = [
    "Block",
    "ChannelGroup",
    "GroupMember",
    "Layer",
    "LayerWidths",
    "ModelGraph",
    "ModelInputs",
    "Operation",
    "Passthrough",
    "drop_blocks",
    "fingerprint",
    "output_tensors",
    "prune_groups",
    "pruned_widths",
    "remove_channels",
    "removed_channels",
    "removed_positions",
    "trace",
]
