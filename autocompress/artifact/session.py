"""Open a file in the runtime of a target: one interface to all of them."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import onnxruntime

from autocompress.artifact.runtime import RUNTIME_ERRORS, Array, open_session
from autocompress.core.target import (
    ONNXRUNTIME,
    ONNXRUNTIME_CUDA,
    OPENVINO,
    TORCH,
    TORCH_COMPILED,
    TORCH_CUDA,
    Target,
)
from autocompress.errors import InvalidInputError, MissingExtraError, explain


class Session(Protocol):
    """An open file; the way of ONNX Runtime, whose own sessions are ones too."""

    def get_inputs(self) -> Sequence[Any]:
        """List the inputs, each with a name, a type and a shape."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> Sequence[Any]:
        """Compute all outputs, or those of the names."""


def open_model(model: Path | bytes, target: Target) -> Session:
    """Open a file in the runtime of a target.

    Args:
        model: Path of the target's kind of file, or the content of an ONNX file.
        target: The runtime and its threads.

    Raises:
        MissingFileError: If there is no such file.
        MissingExtraError: If the runtime is not installed.
        InvalidInputError: If the host has no such device, or the file does not
            fit the runtime.
    """
    check_available(target)
    if target.runtime == ONNXRUNTIME:
        session: Session = open_session(model, threads=target.threads)
        return session
    if target.runtime == ONNXRUNTIME_CUDA:
        return open_session(model, threads=target.threads, providers=["CUDAExecutionProvider"])  # type: ignore[no-any-return]
    if target.runtime == OPENVINO:
        from autocompress.artifact.openvino_session import OpenVinoSession

        return OpenVinoSession(model, threads=target.threads)
    if not isinstance(model, Path):
        raise InvalidInputError(
            explain(
                f"target '{target.name}'",
                expected="the path of a .pt2 file",
                got="the content of an ONNX file",
                remedy="export the model for this target",
            )
        )
    from autocompress.artifact.torch_file import read_named_program
    from autocompress.artifact.torch_session import TorchSession

    program, names = read_named_program(model)
    return TorchSession.of_program(program, target, names)


def check_available(target: Target) -> None:
    """Refuse a target whose runtime is not installed, or whose device this host lacks.

    Raises:
        MissingExtraError: With the extra to install.
        InvalidInputError: With the device that is missing, or for a target that is simulated.
    """
    if target.simulation is not None:
        raise InvalidInputError(
            explain(
                f"target '{target.name}'",
                expected="a runtime on this host",
                got="simulated hardware",
                remedy="ask its profile, ac.profile(target).predict_costs(space, candidate)",
            )
        )
    if target.runtime == OPENVINO and importlib.util.find_spec("openvino") is None:
        raise MissingExtraError(
            explain(
                f"target '{target.name}'",
                expected="the package openvino",
                got="none installed",
                remedy="pip install 'autocompress[openvino]'",
            )
        )
    if target.runtime == TORCH_CUDA:
        import torch

        if not torch.cuda.is_available():
            raise _no_device(target, "a CUDA device that PyTorch sees")
    providers = onnxruntime.get_available_providers()
    if target.runtime == ONNXRUNTIME_CUDA and "CUDAExecutionProvider" not in providers:
        raise _no_device(target, "onnxruntime-gpu and a CUDA device")


def bound_call(session: Session, feed: Mapping[str, Array]) -> Callable[[], object]:
    """Return a call that runs a session on one batch, with no work but the runtime's."""
    bind: Callable[[Mapping[str, Array]], Callable[[], object]] | None = getattr(
        session, "bind", None
    )
    if bind is not None:
        return bind(feed)
    return lambda: session.run(None, feed)


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return what the runtimes raise when they refuse a batch."""
    return (*RUNTIME_ERRORS, RuntimeError)


def runtime_version(target: Target) -> dict[str, str]:
    """Name the version of the runtime that a target uses."""
    from importlib.metadata import version

    package = {OPENVINO: "openvino", TORCH: "torch", TORCH_COMPILED: "torch", TORCH_CUDA: "torch"}
    name = package.get(target.runtime, "onnxruntime")
    if name == "onnxruntime":
        return {name: onnxruntime.__version__}
    return {name: version(name)}


def _no_device(target: Target, expected: str) -> InvalidInputError:
    return InvalidInputError(
        explain(
            f"target '{target.name}'",
            expected=expected,
            got="none on this host",
            remedy="choose a target that ends in -cpu, or profile the device with a bundle",
        )
    )
