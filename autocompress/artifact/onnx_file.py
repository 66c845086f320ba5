"""Write a compressed model as an ONNX file whose QDQ nodes carry its grids."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  registers the operators used below
from torch import Tensor, nn

from autocompress.artifact.folding import fold_layer
from autocompress.core.files import write_atomic
from autocompress.errors import AutocompressError, ExportError, explain
from autocompress.transform.compress import Inputs
from autocompress.transform.compressed import (
    CompressedModel,
    PlannedMode,
    TensorQuantiser,
    map_inputs,
    site_points,
)
from autocompress.transform.discovery import weight_owners

OPSET = 20
"""ONNX operator set of the artifacts."""


class _Exportable(nn.Module):
    """A compressed model written with integer weights and quantise-dequantise pairs."""

    def __init__(self, compressed: CompressedModel) -> None:
        super().__init__()
        self.network = compressed.network
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
        for name, key in self.keys.items():
            folded = fold_layer(compressed, name)
            self.register_buffer(f"{key}_codes", folded.codes)
            self.register_buffer(f"{key}_scales", folded.scales)
            codes = folded.bias_codes()
            if codes is None:
                self.register_buffer(f"{key}_bias", folded.bias)
            else:
                self.register_buffer(f"{key}_bias", codes)
                self.register_buffer(f"{key}_bias_scales", folded.bias_scales)
            self.register_buffer(f"{key}_zeros", torch.zeros(len(folded.scales), dtype=torch.int64))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = PlannedMode(
            self.points, self._pair, weight_owners(self.network), self._layer, self.skipped
        )
        args, kwargs = map_inputs((args, kwargs), self.points, mode.on_point)
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
        key = self.keys[name]
        zeros, scales = self.get_buffer(f"{key}_zeros"), self.get_buffer(f"{key}_scales")
        dequantize = torch.ops.quantized_decomposed.dequantize_per_channel
        weight = dequantize(
            self.get_buffer(f"{key}_codes"), scales, zeros, 0, -127, 127, torch.int8
        )
        bias = self.get_buffer(f"{key}_bias")
        if bias.dtype == torch.int32:
            steps = self.get_buffer(f"{key}_bias_scales")
            bias = dequantize(bias, steps, zeros, 0, -(2**31), 2**31 - 1, torch.int32)
        return (args[0], weight, bias, *args[3:])


def write_onnx(compressed: CompressedModel, path: Path, inputs: Inputs) -> None:
    """Export a compressed model; the batch axis is dynamic.

    Args:
        compressed: A calibrated model; put in eval mode.
        path: The file to write.
        inputs: Positional and keyword arguments of one forward call, with at
            least one example along each first axis.

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
    args, kwargs = map_inputs(inputs, {}, _keep)
    args, kwargs = _pairs_of_examples(args), _pairs_of_examples(kwargs)
    shapes = (_dynamic(args), _dynamic(kwargs))
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                _Exportable(compressed).eval(),
                args,
                kwargs=dict(kwargs) or None,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes={"args": shapes[0], "kwargs": shapes[1]} if kwargs else {"args": shapes[0]},
                verbose=False,
            )
        except AutocompressError:
            raise
        except Exception as error:
            raise ExportError(
                explain(
                    "export",
                    expected="a model that torch.onnx.export takes",
                    got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                    remedy="simplify the forward pass, or compress a submodule",
                )
            ) from error
    if program is None:
        raise ExportError("export: torch.onnx.export returned nothing; report this.")
    write_atomic(path, lambda temporary: program.save(temporary))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter warns about its own internals; failures raise.
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _keep(tensor: Tensor, site: int) -> Tensor:
    return tensor


def _pairs_of_examples(value: Any) -> Any:
    """Repeat one example, since tracing with a batch of one would fix the batch axis."""
    if isinstance(value, Tensor):
        return value[:1].repeat(2, *([1] * (value.dim() - 1))) if value.dim() else value
    if isinstance(value, Mapping):
        return {key: _pairs_of_examples(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_pairs_of_examples(item) for item in value)
    return value


def _dynamic(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {0: torch.export.Dim("batch")} if value.dim() else None
    if isinstance(value, Mapping):
        return {key: _dynamic(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_dynamic(item) for item in value)
    return None
