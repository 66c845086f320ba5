"""Write a compressed model as an ONNX file whose QDQ nodes carry its grids."""

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn

from autocompress.artifact.example_call import ExampleCall
from autocompress.artifact.executed import integer_layers
from autocompress.artifact.folding import fold_layer
from autocompress.artifact.onnx_weights import fits_int4, shield_float_weights, store_weights
from autocompress.core.candidate import Candidate
from autocompress.core.files import write_atomic
from autocompress.core.target import ONNXRUNTIME
from autocompress.errors import AutocompressError, ExportError, TraceError, explain
from autocompress.graph.inputs import one_line
from autocompress.graph.operations import Inputs, weight_owners
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.planned import PlannedMode, map_inputs, site_points
from autocompress.transform.quantiser import TensorQuantiser
from autocompress.transform.record import SurgeryRecord
from autocompress.transform.weights import WeightLayout

OPSET, INT4_OPSET = 20, 21
"""ONNX operator set of the artifacts, and of those with INT4 weights."""

MOST_BYTES = 1_500_000_000
"""Bytes of weights that one file has; its format ends at 2 GB."""


class ExportableModel(nn.Module):
    """A compressed model written with integer weights and quantise-dequantise pairs.

    It is called with tensors alone; what else its call has is fixed in it.

    Args:
        compressed: A calibrated model.
        call: The call that is captured.
        integer: Names of the quantised layers that are computed in integers.
    """

    def __init__(
        self, compressed: CompressedModel, call: ExampleCall, integer: Collection[str]
    ) -> None:
        super().__init__()
        self.network = compressed.network
        self.call = call
        plan = compressed.record.plan
        self.points = site_points(plan)
        self.grids = [
            (q.scale, q.zero_point, 2**q.bits - 1)
            for q in compressed.quantisers
            if isinstance(q, TensorQuantiser)
        ]
        self.keys = {name: f"layer_{i}" for i, name in enumerate(compressed.record.quantised)}
        self.skipped = frozenset(
            number for name, (_, number) in plan.folds.items() if name in self.keys
        )
        self.layouts: dict[str, tuple[WeightLayout, bool]] = {}
        self.codes: list[str] = []
        self.floats: list[str] = []
        for name, key in self.keys.items():
            folded = fold_layer(compressed, name)
            layout, whole = folded.layout, folded.per_channel and name in integer
            self.layouts[name] = layout, whole
            codes = folded.codes if whole else layout.shared(folded.codes).flatten(0, 1)
            self.codes.append(f"{key}_codes")
            self.register_buffer(f"{key}_codes", codes)
            self.register_buffer(f"{key}_scales", folded.scales.flatten())
            bias = folded.bias_codes() if whole else None
            if bias is None:
                self.floats.append(f"{key}_codes")
                self.register_buffer(f"{key}_bias", folded.bias)
            else:
                self.register_buffer(f"{key}_bias", bias)
                self.register_buffer(f"{key}_bias_scales", folded.bias_scales)

    def forward(self, *tensors: Tensor) -> Any:
        """Compute what the compressed model computes, on grids that exporters know."""
        mode = PlannedMode(
            self.points, self._pair, weight_owners(self.network), self._layer, self.skipped
        )
        args, kwargs = map_inputs(self.call.filled(tensors), self.points, mode.on_point)
        with mode:
            return self.network(*args, **kwargs)

    def _pair(self, tensor: Tensor, site: int) -> Tensor:
        scale, zero_point, top = self.grids[site]
        operators = torch.ops.quantized_decomposed
        codes = operators.quantize_per_tensor(tensor, scale, zero_point, 0, top, torch.uint8)
        result: Tensor = operators.dequantize_per_tensor(
            codes, scale, zero_point, 0, top, torch.uint8
        )
        return result

    def _layer(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if name not in self.keys:
            return args
        key, (layout, whole) = self.keys[name], self.layouts[name]
        codes, scales = self.get_buffer(f"{key}_codes"), self.get_buffer(f"{key}_scales")
        axis = layout.axis if whole else 0
        weight = _dequantised(codes, scales, axis, 127)
        if not whole:
            weight = layout.unshared(weight)
        if isinstance(self.network.get_submodule(name), nn.Embedding):
            return (args[0], weight, *args[2:])
        bias = self.get_buffer(f"{key}_bias")
        if bias.dtype == torch.int32:
            steps = self.get_buffer(f"{key}_bias_scales")
            bias = _dequantised(bias, steps, 0, 2**31 - 1)
        return (args[0], weight, bias, *args[3:])


def _dequantised(codes: Tensor, scales: Tensor, axis: int, limit: int) -> Tensor:
    """Multiply integers with the scales along an axis, as DequantizeLinear."""
    dequantize = torch.ops.quantized_decomposed.dequantize_per_channel
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    low = -limit if codes.dtype == torch.int8 else -limit - 1
    result: Tensor = dequantize(codes, scales, zeros, axis, low, limit, codes.dtype)
    return result


def write_onnx(
    compressed: CompressedModel, path: Path, inputs: Inputs, *, runtime: str = ONNXRUNTIME
) -> None:
    """Export a compressed model; the batch axis is dynamic.

    Layers that the runtime cannot compute in integers, since it would have to
    read or write floats, are written for floats.

    Args:
        compressed: A calibrated model; put in eval mode.
        path: The file to write.
        inputs: Positional and keyword arguments of one forward call, with at
            least one example along each first axis.
        runtime: What will run the file.

    Raises:
        ExportError: If the model is not calibrated or cannot be exported.
    """
    if not compressed.calibrated:
        raise ExportError(
            explain(
                "export",
                expected="a calibrated model",
                got="activation grids that have seen no data",
                remedy="pass calibration= or task= to compress",
            )
        )
    compressed.eval()
    call = ExampleCall.of(inputs)
    exportable = ExportableModel(
        compressed, call, integer_layers(compressed, inputs, runtime)
    ).eval()
    narrow = any(fits_int4(exportable.get_buffer(name).numpy()) for name in exportable.codes)
    opset = INT4_OPSET if narrow else OPSET
    with torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                exportable,
                call.tensors,
                input_names=call.names,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=(call.dynamic_shapes,),
                verbose=False,
            )
        except AutocompressError:
            raise
        except Exception as error:
            raise ExportError(
                explain(
                    "export",
                    expected="a model that torch.onnx.export takes",
                    got=one_line(
                        error.__cause__ if isinstance(error.__cause__, Exception) else error
                    ),
                    remedy="simplify the forward pass, or compress a submodule",
                )
            ) from error
    if program is None:
        raise ExportError("export: torch.onnx.export returned nothing; report this.")
    graph = program.model.graph
    store_weights(graph, exportable.codes, exportable.floats)
    shield_float_weights(graph)
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()  # source lines and paths of this host, half of a small file
    stored = [value.const_value for value in graph.initializers.values()]
    beside = weights_beside(path)
    if sum(value.nbytes for value in stored if value is not None) > MOST_BYTES:
        write_atomic(path, lambda part: ir.save(program.model, part, external_data=beside.name))
        return
    write_atomic(path, lambda part: ir.save(program.model, part))
    beside.unlink(missing_ok=True)  # of a larger model that was here


def weights_beside(path: Path) -> Path:
    """Return where the weights are of an ONNX file that is too large to have them itself."""
    return path.with_name(f"{path.name}.data")


def check_exportable(model: nn.Module, inputs: Inputs) -> None:
    """Refuse a model whose forward pass cannot be captured, before any work is done on it.

    Args:
        model: Put in eval mode.
        inputs: Positional and keyword arguments of one forward call.

    Raises:
        TraceError: If what the model computes depends on the values it sees.
    """
    whole = CompressedModel(model, SurgeryRecord(candidate=Candidate()))
    call = ExampleCall.of(inputs)
    with torch.no_grad(), quiet():
        try:
            torch.export.export(
                ExportableModel(whole, call, ()).eval(),
                call.tensors,
                dynamic_shapes=(call.dynamic_shapes,),
                strict=False,
            )
        except Exception as error:
            raise TraceError(
                explain(
                    f"model {type(model).__name__}",
                    expected="a forward pass that torch.export can capture",
                    got=one_line(error),
                    remedy="remove control flow that depends on values or on the batch size",
                )
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # The exporter warns about its own internals and prints graphs; failures raise.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
