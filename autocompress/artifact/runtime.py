"""Run an ONNX file in ONNX Runtime: one way to open it and to feed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from autocompress.errors import InvalidInputError, MissingFileError, explain

Array = npt.NDArray[Any]
Inputs = Array | Sequence[Array] | Mapping[str, Array]
"""One batch: an array, arrays in the order of the model's inputs, or arrays by name."""

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)
"""What ONNX Runtime raises when it refuses a model or a batch."""

OPENING_ERRORS: tuple[type[Exception], ...] = (*RUNTIME_ERRORS, UnicodeDecodeError)
"""What opening a model raises: names in a damaged one may be no text."""

STOP_SPINNING = ("session.force_spinning_stop", "1")
"""Lets threads rest once a run has ended, so that they disturb no other session timed in turns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputNode:
    """An input of an open file, described as ONNX Runtime does.

    Attributes:
        name: Its name.
        type: Such as "tensor(float)".
        shape: Integers, or "batch" for the axis that is open.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


def open_session(
    model: Path | bytes, *, threads: int, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime, with every optimisation on.

    Args:
        model: Path of an ONNX file, or its content.
        threads: Threads that one inference uses, >= 1.
        providers: Where it runs; all of them must load.

    Returns:
        A session that runs one operator after the other.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If `threads` is below 1, the file is not ONNX, the
            runtime cannot run it, or lacks the libraries of a provider.
    """
    if threads < 1:
        raise InvalidInputError(
            explain("'threads'", expected=">= 1", got=threads, remedy="set threads: 1")
        )
    name = "the model" if isinstance(model, bytes) else f"'{model}'"
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise MissingFileError(
            explain(name, expected="an ONNX file", got="nothing there", remedy="check the path")
        )
    source = model if isinstance(model, bytes) else str(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry(*STOP_SPINNING)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers))
    except OPENING_ERRORS as error:
        raise InvalidInputError(
            explain(
                name,
                expected="an ONNX model that ONNX Runtime can run",
                got=_first_line(error),
                remedy="check that the file is complete and was exported for this version",
            )
        ) from error
    found = session.get_providers()
    if missing := [provider for provider in providers if provider not in found]:
        raise InvalidInputError(
            explain(
                name,
                expected=f"a session on {', '.join(missing)}",
                got=f"one on {', '.join(found)}",
                remedy="install the libraries that the provider loads, such as CUDA and cuDNN",
            )
        )
    return session


def bind_inputs(session: Any, inputs: Inputs) -> dict[str, Array]:
    """Give each input of a session its array.

    Args:
        session: The open model.
        inputs: One batch; floating-point arrays are cast to float32 where the
            model wants that, others must fit as they are.

    Returns:
        Arrays by input name.

    Raises:
        InvalidInputError: If names or their number do not fit the model.
    """
    nodes = {node.name: node.type for node in session.get_inputs()}
    if isinstance(inputs, np.ndarray):
        inputs = (inputs,)
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(nodes):
            raise InvalidInputError(
                explain(
                    "model inputs",
                    expected=f"{len(nodes)} arrays ({', '.join(nodes)})",
                    got=len(inputs),
                    remedy="give one array per input",
                )
            )
        inputs = dict(zip(nodes, inputs, strict=True))
    if set(inputs) != set(nodes):
        raise InvalidInputError(
            explain(
                "model inputs",
                expected=", ".join(sorted(nodes)),
                got=", ".join(sorted(inputs)),
                remedy="name the arrays as the model does",
            )
        )
    return {
        name: np.asarray(
            array, dtype=np.float32 if nodes[name] == "tensor(float)" else None, order="C"
        )
        for name, array in inputs.items()
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
