"""How weights lie in an ONNX file: small, and so that runtimes compute with them as they are."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

READERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose second input is a weight."""

ARRANGING = frozenset({"Cast", "Mul", "Reshape", "Slice", "Transpose"})
"""Operators between a stored weight and its reader."""


def fits_int4(codes: NDArray[Any]) -> bool:
    """Tell whether integers fit into four bits."""
    return bool(codes.min(initial=0) >= -8 and codes.max(initial=0) <= 7)


def store_weights(
    graph: ir.Graph, codes: Iterable[str], floats: Collection[str], *, smallest: bool = True
) -> None:
    """Choose how the integers of weights are stored and how they become floats.

    Those that fit are stored in INT4. Runtimes have integer kernels for INT8
    alone and would multiply INT4 in floating point, so that a Cast to INT8
    comes next; runtimes compute it once, when they load the file. Weights of
    layers without an integer kernel are a product of constants, Cast and Mul,
    for the same reason: ONNX Runtime would run their DequantizeLinear in
    every inference, for an embedding over the whole table.

    Args:
        graph: Changed in place; has a DequantizeLinear for every weight.
        codes: Names of the integers.
        floats: Those of layers that are computed in floating point.
        smallest: Whether INT4 is used; it needs operator set 21, and changes
            nothing once the file is loaded.
    """
    for name in codes:
        stored = graph.initializers.get(name)
        if stored is None or stored.const_value is None:
            continue
        array = stored.const_value.numpy()
        narrow = smallest and fits_int4(array)
        for node, _ in tuple(stored.uses()):
            if name in floats:
                _multiply(graph, node, stored)
            elif narrow:
                cast = ir.node("Cast", [stored], {"to": ir.DataType.INT8.value})
                graph.insert_before(node, cast)
                node.replace_input_with(0, cast.outputs[0])
        if narrow:
            stored.const_value = ir.tensor(array.astype(ir.DataType.INT4.numpy()), name=name)
            stored.type = ir.TensorType(ir.DataType.INT4)
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def shield_float_weights(graph: ir.Graph) -> None:
    """Keep ONNX Runtime from rounding weights that are not to be rounded.

    Its optimiser takes a layer between DequantizeLinear and QuantizeLinear
    and rounds float weights to 8 bits, with one scale for all of them. A
    maximum with the least float, which changes nothing, is put in between.

    Args:
        graph: Changed in place.
    """
    least = None
    for node in tuple(graph):
        inputs = node.inputs[0] if node.op_type in READERS else None
        source = None if inputs is None else inputs.producer()
        if source is None or source.op_type != "DequantizeLinear" or not _is_float(node.inputs[1]):
            continue
        least = least or _constant(graph, "least", np.array(np.finfo(np.float32).min))
        shield = ir.node("Max", [inputs, least])
        graph.insert_before(node, shield)
        node.replace_input_with(0, shield.outputs[0])


def _multiply(graph: ir.Graph, node: ir.Node, stored: ir.Value) -> None:
    """Replace a DequantizeLinear by Cast and Mul."""
    scales = node.inputs[1]
    if node.op_type != "DequantizeLinear" or scales is None or scales.const_value is None:
        raise ValueError(f"'{stored.name}' is read by {node.op_type}, not by DequantizeLinear")
    shape = np.ones(len(stored.shape or ()), dtype=int)
    shape[node.attributes.get_int("axis", 1)] = -1
    steps = _constant(graph, f"{node.name}_steps", scales.const_value.numpy().reshape(shape))
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT.value})
    product = ir.node("Mul", [cast.outputs[0], steps])
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [cast, product], node.outputs, product.outputs
    )


def _is_float(value: ir.Value | None) -> bool:
    """Tell whether a value is made of constants, without DequantizeLinear."""
    if value is None:
        return False
    node = value.producer()
    if node is None:
        return value.is_initializer()
    return node.op_type in ARRANGING and _is_float(node.inputs[0])


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(array.astype(np.float32), name=name),
    )
    graph.register_initializer(value)
    return value
