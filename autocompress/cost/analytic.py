"""Costs that follow from a candidate's widths and bits alone."""

import math
from collections.abc import Callable
from functools import lru_cache

from autocompress.core.candidate import CODEBOOK, Candidate, LayerConfig
from autocompress.core.objective import COSTS, Cost, known_costs
from autocompress.core.plugins import load_plugin
from autocompress.core.target import FLOAT
from autocompress.cost.peak_memory import peak_activation_bytes
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.graph.widths import LayerWidths, pruned_widths, removed_channels

FLOAT_BYTES = 4
NORM_PARAMETERS = 2
"""Parameters per channel of a normalisation: weight and bias."""

NORM_BUFFERS = 2
"""Buffers per channel of a normalisation: running mean and variance."""


ENTRY_BYTES = 100
"""What the packed file says of one layer: names, shapes, its part of the record."""

SITE_BYTES = 85
"""What it says of the activation grids of a quantised one."""

HEADER_BYTES = 300
"""What it says beside."""

StoredWeights = Callable[[str, LayerConfig], float]
"""Bits that one weight takes in the packed file, by the layer's name and configuration."""


def count_costs(
    graph: ModelGraph, candidate: Candidate, stored: StoredWeights | None = None
) -> dict[str, float]:
    """Count what a candidate computes and stores.

    MACs, BOPs and the parameters of layers are exact. The rest of `parameters`
    and `size_bytes` are estimates: every other module that carries the
    channels of a group is taken for a normalisation with two parameters and two
    buffers per channel and shrinks with the group; parameters that belong to
    neither stay.

    Args:
        graph: The structure of the original model.
        candidate: The joint configuration.
        stored: Bits per weight, as `StoredBits` finds them; None for those
            of the codes, as if nothing shortened them.

    Returns:
        "macs", for one example;
        "bops", the sum over layers of macs x weight_bits x activation_bits;
        "parameters", a number of values;
        "size_bytes", of the packed file: the weights of a quantised or sparse
        layer at `stored` bits each, four bytes per scale, and a byte per
        entry of a codebook; every other value takes four bytes. Sparsity
        counts for nothing else: MACs, BOPs and parameters are those of the
        whole layers;
        "peak_memory_bytes", the most that the tensors between layers take for
        one example, see `peak_activation_bytes`; and registered costs.
    """
    widths = pruned_widths(graph, candidate)
    macs = bops = parameters = 0
    size = HEADER_BYTES
    for name, width in widths.items():
        layer, config = graph.layer_by_name[name], candidate.layer(name)
        biases = width.out_channels if layer.parameters > math.prod(layer.weight_shape) else 0
        weights = width.parameters - biases
        macs += width.macs
        bops += width.macs * config.weight_bits * config.activation_bits
        parameters += width.parameters
        size += ENTRY_BYTES + FLOAT_BYTES * biases
        size += math.ceil(weights * (stored or _plain_bits)(name, config) / 8)
        if config.weight_bits < FLOAT:
            size += SITE_BYTES + _grid_bytes(layer, width, config)
    whole, left = _norm_channels(graph, candidate)
    in_layers = sum(layer.parameters for layer in graph.layers)
    others = max(graph.parameters - in_layers - NORM_PARAMETERS * whole, 0)
    parameters += others + NORM_PARAMETERS * left
    size += FLOAT_BYTES * (others + (NORM_PARAMETERS + NORM_BUFFERS) * left)
    return {
        "macs": macs,
        "bops": bops,
        "parameters": parameters,
        "size_bytes": size,
        "peak_memory_bytes": peak_activation_bytes(graph, candidate, widths),
        **{
            name: float(load_plugin("costs", name, Cost).compute(graph, candidate))
            for name in known_costs()
            if name not in COSTS
        },
    }


def _plain_bits(_: str, config: LayerConfig) -> float:
    """Return the bits of a weight's code, or of its share of the kept ones and their places."""
    kept = 1.0 - config.sparsity
    if kept == 1.0:
        return config.weight_bits
    places = -kept * math.log2(kept) - (1.0 - kept) * math.log2(1.0 - kept)
    return min(config.weight_bits, kept * config.weight_bits + places)


def _grid_bytes(layer: Layer, width: LayerWidths, config: LayerConfig) -> int:
    """Return the bytes of a layer's scales and codebook."""
    rows, inputs = width.out_channels, width.in_channels
    if layer.type == "Embedding":
        rows, inputs = inputs, rows
    elif layer.groups > 1:
        inputs = (
            layer.weight_shape[0] // layer.groups if layer.inputs_first else layer.weight_shape[1]
        )
    groups = -(-inputs // config.group_size) if config.group_size else 1
    codebook = 2**config.weight_bits if config.weight_format == CODEBOOK else 0
    return FLOAT_BYTES * rows * groups + codebook


def _norm_channels(graph: ModelGraph, candidate: Candidate) -> tuple[int, int]:
    """Count the channels of normalisations, before and after compression."""
    whole = left = 0
    for group_name, module, channels in _norms(graph):
        whole += channels
        if candidate.drops(module):
            continue
        left += channels
        ratio = candidate.pruning_ratios.get(group_name, 0.0)
        if ratio:
            group = graph.group_by_name[group_name]
            left -= removed_channels(group, ratio) * channels // group.channels
    return whole, left


@lru_cache(maxsize=8)
def _norms(graph: ModelGraph) -> tuple[tuple[str, str, int], ...]:
    """List normalisations as (group, module, channels), every channel once."""
    seen: set[tuple[str, int]] = set()
    norms = []
    for group in sorted(graph.groups, key=lambda group: not group.prunable):
        for member in group.members:
            if member.axis == "out" and member.module not in graph.layer_by_name:
                places = {(member.module, at) for taken in member.indices for at in taken} - seen
                seen |= places
                norms.append((group.name, member.module, len(places)))
    return tuple(norms)
