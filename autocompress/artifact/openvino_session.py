"""Run an ONNX file in OpenVINO on the CPU."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.artifact.runtime import Array, InputNode
from autocompress.errors import InvalidInputError, MissingFileError, explain

SETTINGS = {
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,  # it would undo that of the caller, in every inference
    "INFERENCE_PRECISION_HINT": "f32",  # else floats are computed in bf16
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else inputs of linear layers are rounded to 8 bits
}
"""How files are compiled: for one request at a time, and to compute what they say."""


class OpenVinoSession:
    """An ONNX file in OpenVINO; it is compiled for each size of batch when one comes first.

    Args:
        model: Path of the file, or its content.
        threads: Threads that one inference uses, >= 1.
    """

    def __init__(self, model: Path | bytes, *, threads: int) -> None:
        import openvino

        if isinstance(model, Path) and not model.is_file():
            raise MissingFileError(
                explain(f"'{model}'", expected="an ONNX file", got="nothing", remedy="check it")
            )
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(model)
        except RuntimeError as error:
            raise InvalidInputError(
                explain(
                    "the model" if isinstance(model, bytes) else f"'{model}'",
                    expected="an ONNX model that OpenVINO can run",
                    got=str(error).strip().splitlines()[-1],
                    remedy="check that the file is complete",
                )
            ) from error
        self._threads = threads
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def get_inputs(self) -> Sequence[InputNode]:
        """List the inputs, as ONNX Runtime does."""
        return [
            InputNode(
                name=entry.get_any_name(),
                type=_TYPES.get(entry.get_element_type().get_type_name(), "tensor(float)"),
                shape=tuple(
                    size.get_length() if size.is_static else "batch"
                    for size in entry.get_partial_shape()
                ),
            )
            for entry in self._model.inputs
        ]

    def run(self, _: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Compute all outputs."""
        request = self._request(feed)
        found = request.infer(dict(feed))
        return [np.array(found[index]) for index in range(len(request.model_outputs))]

    def bind(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """Return a call that runs on one batch."""
        request = self._request(feed)
        request.infer(dict(feed))  # its tensors stay
        call: Callable[[], object] = request.infer
        return call

    def _request(self, feed: Mapping[str, Array]) -> Any:
        shapes = tuple(feed[node.name].shape for node in self.get_inputs())
        if shapes not in self._requests:
            model = self._model.clone()
            model.reshape(dict(zip(model.inputs, map(list, shapes), strict=True)))
            settings = {"INFERENCE_NUM_THREADS": self._threads, **SETTINGS}
            compiled = self._core.compile_model(model, "CPU", settings)
            self._requests[shapes] = compiled.create_infer_request()
        return self._requests[shapes]


_TYPES = {
    "f64": "tensor(double)",
    "f32": "tensor(float)",
    "f16": "tensor(float16)",
    "bf16": "tensor(bfloat16)",
    "i64": "tensor(int64)",
    "i32": "tensor(int32)",
    "i16": "tensor(int16)",
    "i8": "tensor(int8)",
    "u16": "tensor(uint16)",
    "u8": "tensor(uint8)",
    "boolean": "tensor(bool)",
}
