"""The most memory that the tensors between layers take at one time."""

import math
from collections.abc import Mapping

from autocompress.core.candidate import Candidate
from autocompress.core.target import FLOAT
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.graph.widths import LayerWidths


def peak_activation_bytes(
    graph: ModelGraph, candidate: Candidate, widths: Mapping[str, LayerWidths]
) -> int:
    """Estimate the peak of activation memory for one example.

    Layers run one after the other. While one runs, its input, its output and
    the input of the residual block that it lies in are held; normalisations,
    activation functions and additions work in place. A tensor takes the bits
    at which the next layer reads it.

    Args:
        graph: The structure of the original model.
        candidate: The joint configuration.
        widths: What it leaves of every layer, in order of execution.

    Returns:
        Bytes; the weights are not among them.
    """
    layers = [graph.layer_by_name[name] for name in widths]
    bits = [candidate.layer(layer.name).activation_bits for layer in layers]
    read = [
        _elements(layer, layer.input_shape, widths[layer.name].in_channels) * b
        for layer, b in zip(layers, bits, strict=True)
    ]
    held = dict.fromkeys(widths, 0)
    for block in graph.blocks:
        inside = [index for index, layer in enumerate(layers) if layer.name in block.layers]
        for index in inside[1:]:
            held[layers[index].name] += read[inside[0]]
    peak = 0
    for index, layer in enumerate(layers):
        after = bits[index + 1] if index + 1 < len(layers) else FLOAT
        written = _elements(layer, layer.output_shape, widths[layer.name].out_channels) * after
        peak = max(peak, read[index] + written + held[layer.name])
    return math.ceil(peak / 8)


def _elements(layer: Layer, shape: tuple[int, ...], channels: int) -> int:
    """Count the elements of a tensor whose channels are the first axis, or the last."""
    return channels * math.prod(shape[1:] if layer.kernel_size else shape[:-1])
