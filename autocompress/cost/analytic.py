"""Costs that follow from a candidate's widths and bits alone."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import CODEBOOK, Candidate, LayerConfig, is_inside
from autocompress.core.objective import COSTS, Cost, known_costs
from autocompress.core.plugins import load_plugin
from autocompress.core.population import Population
from autocompress.core.target import FLOAT
from autocompress.cost.peak_memory import peak_activation_bytes
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.graph.widths import WidthColumns, all_widths, removed_columns

IntArray = NDArray[np.int64]

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
    columns = count_all_costs(graph, Population.of([candidate]), stored)
    return {name: values[0].item() for name, values in columns.items()}


def count_all_costs(
    graph: ModelGraph, population: Population, stored: StoredWeights | None = None
) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Count the same for `n` candidates at once.

    Args:
        graph: The structure of the original model.
        population: The candidates.
        stored: As of `count_costs`.

    Returns:
        By name, `n` values.
    """
    widths = all_widths(graph, population)
    macs, bops, parameters = (np.zeros(len(population), dtype=np.int64) for _ in range(3))
    size = np.full(len(population), HEADER_BYTES)
    configs = population.configs
    bits = np.array([[c.weight_bits, c.weight_bits * c.activation_bits] for c in configs])
    sharing: dict[str, list[str]] = {}
    for layer in graph.layers:
        sharing.setdefault(layer.tied or layer.name, []).append(layer.name)
    for name, width in widths.items():
        layer, codes = graph.layer_by_name[name], _codes(population, name)
        biases = width.out_channels * (layer.parameters > math.prod(layer.weight_shape))
        weights = (width.parameters - biases) * (not layer.tied)
        per_weight = np.zeros(len(configs))
        for code in np.flatnonzero(np.bincount(codes)):
            per_weight[code] = (stored or _plain_bits)(name, configs[code])
        there = [widths[other].standing for other in sharing.get(name, ()) if other in widths]
        held = np.max([width.standing, *there], axis=0)  # a weight that others share stays for them
        bytes_left = ENTRY_BYTES + FLOAT_BYTES * biases
        size += held * np.ceil(weights * per_weight[codes] / 8).astype(np.int64)
        grids = SITE_BYTES + _grid_bytes(layer, width, configs, codes)
        bytes_left += np.where(bits[codes, 0] < FLOAT, grids, 0)
        macs += width.standing * width.macs
        bops += width.standing * width.macs * bits[codes, 1]
        parameters += held * weights + width.standing * biases
        size += width.standing * bytes_left
    whole, left = _norm_channels(graph, population)
    tied = sum(math.prod(layer.weight_shape) for layer in graph.layers if layer.tied)
    in_layers = sum(layer.parameters for layer in graph.layers) - tied
    others = max(graph.parameters - in_layers - NORM_PARAMETERS * whole, 0)
    parameters += others + NORM_PARAMETERS * left
    size += FLOAT_BYTES * (others + (NORM_PARAMETERS + NORM_BUFFERS) * left)
    own = {
        name: load_plugin("costs", name, Cost).compute
        for name in known_costs()
        if name not in COSTS
    }
    return {
        "macs": macs,
        "bops": bops,
        "parameters": parameters,
        "size_bytes": size,
        "peak_memory_bytes": peak_activation_bytes(graph, population, widths),
        **{n: np.array([float(f(graph, c)) for c in population]) for n, f in own.items()},
    }


def _codes(population: Population, layer: str) -> NDArray[np.intp]:
    """Return which configuration each candidate gives a layer."""
    codes = population.layers.get(layer)
    return np.zeros(len(population), dtype=np.intp) if codes is None else codes


def _plain_bits(_: str, config: LayerConfig) -> float:
    """Return the bits of a weight's code, or of its share of the kept ones and their places."""
    kept = 1.0 - config.sparsity
    if kept == 1.0:
        return config.weight_bits
    places = -kept * math.log2(kept) - (1.0 - kept) * math.log2(1.0 - kept)
    return min(config.weight_bits, kept * config.weight_bits + places)


def _grid_bytes(
    layer: Layer, width: WidthColumns, configs: tuple[LayerConfig, ...], codes: NDArray[np.intp]
) -> IntArray:
    """Return the bytes of a layer's scales and codebook, `n` values."""
    rows, inputs = width.out_channels, width.in_channels
    if layer.type == "Embedding":
        rows, inputs = inputs, rows
    elif layer.groups > 1:
        own = layer.weight_shape[0] // layer.groups if layer.inputs_first else layer.weight_shape[1]
        inputs = np.full(len(codes), own)
    shared = np.array([config.group_size for config in configs])[codes]
    groups = np.where(shared > 0, -(-inputs // np.maximum(shared, 1)), 1)
    books = [2**c.weight_bits if c.weight_format == CODEBOOK else 0 for c in configs]
    found: IntArray = FLOAT_BYTES * rows * groups + np.array(books)[codes]
    return found


def _norm_channels(graph: ModelGraph, population: Population) -> tuple[int, IntArray]:
    """Count the channels of normalisations, before and after compression, `n` values."""
    whole, left = 0, np.zeros(len(population), dtype=np.int64)
    for group_name, blocks, channels in _norms(graph):
        whole += channels
        kept: IntArray | int = channels
        if group_name in population.ratios:
            group = graph.group_by_name[group_name]
            removed = removed_columns(group, population.ratios[group_name])
            kept = channels - removed * channels // group.channels
        left += np.where(population.gone(blocks), 0, kept)
    return whole, left


@lru_cache(maxsize=8)
def _norms(graph: ModelGraph) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    """List normalisations as (group, blocks around it, channels), every channel once."""
    seen: set[tuple[str, int]] = set()
    norms = []
    for group in sorted(graph.groups, key=lambda group: not group.prunable):
        for member in group.members:
            if member.axis == "out" and member.module not in graph.layer_by_name:
                places = {(member.module, at) for taken in member.indices for at in taken} - seen
                seen |= places
                around = [b for b in graph.block_by_name if is_inside(member.module, b)]
                norms.append((group.name, tuple(around), len(places)))
    return tuple(norms)
