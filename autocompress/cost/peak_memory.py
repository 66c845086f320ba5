"""The most memory that the tensors between layers take at one time."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autocompress.core.population import Population
from autocompress.core.target import FLOAT
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.graph.widths import WidthColumns

IntArray = NDArray[np.int64]

TOKEN_BITS = 64
"""Bits of a token's number, as PyTorch and ONNX files take them."""


def peak_activation_bytes(
    graph: ModelGraph, population: Population, widths: Mapping[str, WidthColumns]
) -> IntArray:
    """Estimate the peak of activation memory for one example.

    Layers run one after the other. While one runs, its input, its output and
    the input of the residual block that it lies in are held; normalisations,
    activation functions and additions work in place. A tensor takes the bits
    at which the next layer reads it; numbers of tokens, which embeddings read, take
    `TOKEN_BITS`.

    Args:
        graph: The structure of the original model.
        population: n joint configurations.
        widths: What they leave of every layer, in order of execution.

    Returns:
        `n` numbers of bytes; the weights are not among them.
    """
    activation_bits = np.array([config.activation_bits for config in population.configs])
    bits = {
        name: activation_bits[population.layers[name]] if name in population.layers else FLOAT
        for name in widths
    }
    read = {
        name: _read_bits(layer, widths[name].in_channels, bits[name])
        for name, layer in graph.layer_by_name.items()
    }
    held: dict[str, IntArray | int] = dict.fromkeys(widths, 0)
    for block in graph.blocks:
        taken = np.zeros(len(population), dtype=np.int64)  # by its first layer that stands
        for name in (name for name in widths if name in block.layers):
            held[name] = held[name] + taken
            first = widths[name].standing & (taken == 0)
            taken = np.where(first, read[name], taken)
    peak = np.zeros(len(population), dtype=np.int64)
    after: IntArray | int = FLOAT
    for name in reversed(list(widths)):
        layer, left = graph.layer_by_name[name], widths[name]
        written = _elements(layer, layer.output_shape, left.out_channels) * after
        peak = np.where(left.standing, np.maximum(peak, read[name] + written + held[name]), peak)
        after = np.where(left.standing, bits[name], after)
    return -(-peak // 8)


def _read_bits(layer: Layer, channels: IntArray, bits: IntArray | int) -> IntArray:
    """Count the bits of what a layer reads; the channels of an embedding are its vocabulary."""
    if layer.type == "Embedding":
        return np.full_like(channels, math.prod(layer.input_shape) * TOKEN_BITS)
    return _elements(layer, layer.input_shape, channels) * bits


def _elements(layer: Layer, shape: tuple[int, ...], channels: IntArray) -> IntArray:
    """Count the elements of a tensor whose channels are the first axis, or the last."""
    return channels * math.prod(shape[1:] if layer.kernel_size else shape[:-1])
