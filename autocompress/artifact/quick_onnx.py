"""ONNX files that are only timed: the tracing exporter writes them ten times as fast."""

from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.onnx import symbolic_helper

from autocompress.artifact.example_call import ExampleCall
from autocompress.artifact.executed import integer_layers
from autocompress.artifact.onnx_file import ExportableModel, quiet
from autocompress.artifact.onnx_weights import shield_float_weights, store_weights
from autocompress.core.files import write_atomic
from autocompress.core.target import ONNXRUNTIME
from autocompress.errors import ExportError, explain
from autocompress.graph.inputs import one_line
from autocompress.graph.operations import Inputs
from autocompress.transform.compressed import CompressedModel

OPSET = 17
INT8, INT32 = 3, 6
"""Numbers of the element types in ONNX."""


def write_quickly(
    compressed: CompressedModel, path: Path, inputs: Inputs, *, runtime: str = ONNXRUNTIME
) -> None:
    """Write what `write_onnx` writes, for measurements.

    Runtimes compute the same from either file, at the same speed; this one is
    not verified, may be larger, and is no artifact.

    Args:
        compressed: A calibrated model; put in eval mode.
        path: The file to write.
        inputs: Positional and keyword arguments of one forward call.
        runtime: What will run the file.

    Raises:
        ExportError: If the model cannot be traced.
    """
    compressed.eval()
    call = ExampleCall.of(inputs)
    integer = integer_layers(compressed, inputs, runtime)
    exportable = ExportableModel(compressed, call, integer).eval()

    def write(temporary: Path) -> None:
        torch.onnx.export(
            exportable,
            call.tensors,
            str(temporary),
            dynamo=False,
            opset_version=OPSET,
            input_names=call.names,
            dynamic_axes={name: {0: "batch"} for name in call.names},
        )
        model = ir.load(temporary)
        _restore_inputs(model.graph, call)
        store_weights(model.graph, exportable.codes, exportable.floats, smallest=False)
        shield_float_weights(model.graph)
        ir.save(model, temporary)

    _register()
    with torch.no_grad(), quiet():
        try:
            write_atomic(path, write)
        except Exception as error:
            raise ExportError(
                explain(
                    "export",
                    expected="a model that torch.onnx.export can trace",
                    got=one_line(error),
                    remedy="profile without whole networks, networks=0",
                )
            ) from error


def _restore_inputs(graph: ir.Graph, call: ExampleCall) -> None:
    """Add the inputs that a candidate does not use, which the tracing exporter leaves out."""
    known = {value.name for value in graph.inputs}
    for place, (name, tensor) in enumerate(zip(call.names, call.tensors, strict=True)):
        if name not in known:
            dtype = ir.DataType.from_numpy(tensor.detach().cpu().numpy().dtype)
            shape = ir.Shape(["batch", *tensor.shape[1:]])
            unused = ir.Value(name=name, shape=shape, type=ir.TensorType(dtype))
            graph.inputs.insert(place, unused)


def _register() -> None:
    """Teach the tracing exporter the operators of grids."""
    for name, write in (
        ("quantize_per_tensor", _quantise),
        ("dequantize_per_tensor", _dequantise),
        ("dequantize_per_channel", _dequantise_channels),
    ):
        register = torch.onnx.register_custom_op_symbolic  # type: ignore[attr-defined]
        register(f"quantized_decomposed::{name}", write, OPSET)


def _grid(graph: Any, scale: Any, zero: Any) -> tuple[Any, Any]:
    values = (
        torch.tensor(float(symbolic_helper._maybe_get_const(scale, "f"))),
        torch.tensor(int(symbolic_helper._maybe_get_const(zero, "i")), dtype=torch.uint8),
    )
    first, second = (graph.op("Constant", value_t=value) for value in values)
    return first, second


def _quantise(graph: Any, tensor: Any, scale: Any, zero: Any, *_: Any) -> Any:
    return graph.op("QuantizeLinear", tensor, *_grid(graph, scale, zero))


def _dequantise(graph: Any, codes: Any, scale: Any, zero: Any, *_: Any) -> Any:
    return graph.op("DequantizeLinear", codes, *_grid(graph, scale, zero))


def _dequantise_channels(
    graph: Any, codes: Any, scales: Any, zeros: Any, axis: Any, low: Any, *_: Any
) -> Any:
    wide = symbolic_helper._maybe_get_const(low, "i") < -(2**15)
    typed = graph.op("Cast", zeros, to_i=INT32 if wide else INT8)
    position = symbolic_helper._maybe_get_const(axis, "i")
    return graph.op("DequantizeLinear", codes, scales, typed, axis_i=position)
