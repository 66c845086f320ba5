"""Write both files of an artifact, and check the runnable one against its model."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from autocompress.artifact.exact import ExactModel
from autocompress.artifact.example_call import ExampleCall, refilled, tensors_of
from autocompress.artifact.onnx_file import weights_beside, write_onnx
from autocompress.artifact.packed import write_packed
from autocompress.artifact.saturation import saturates
from autocompress.artifact.session import open_model
from autocompress.artifact.torch_file import write_program
from autocompress.core.target import FLOAT, Target
from autocompress.errors import ExportError, InvalidInputError, WrongTypeError, explain
from autocompress.graph.operations import Inputs
from autocompress.transform.compressed import CompressedModel

DEFAULT = Target.named("onnxruntime-cpu")
"""The target of files that name none."""

OUTPUT_TOLERANCE = 0.05
"""Largest mean difference of outputs, as a fraction of their mean magnitude."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """The files of one compressed model.

    Attributes:
        path: The file that the target runs: ONNX, or a torch.export program.
        packed_path: The bit-packed weights.
        size_bytes: Size of the packed file.
        onnx_bytes: Size of that file, and of `model.onnx.data` if its weights are too large for it.
    """

    path: Path
    packed_path: Path
    size_bytes: int
    onnx_bytes: int


def export_artifact(
    compressed: CompressedModel, path: Path, inputs: Inputs, *, target: Target
) -> Artifact:
    """Write `path` (ONNX, or .pt2 for PyTorch) and the packed weights beside it.

    Those of `model.onnx` are `weights.packed`, those of any other `name.onnx`
    are `name.packed`, so that several models can lie in one folder. Simulated
    targets run nothing: their file is that of `DEFAULT`.

    Args:
        compressed: A calibrated model.
        path: The ONNX file to write.
        inputs: Positional and keyword arguments of one forward call.
        target: Where the file will run.

    Raises:
        ExportError: If the target does not run the activation bits, the model
            cannot be exported, or the file does not reproduce the outputs.
    """
    if not isinstance(compressed, CompressedModel):
        raise WrongTypeError(
            explain(
                "export",
                expected="a model that compress() returned",
                got=type(compressed).__name__,
                remedy="call compress() first",
            )
        )
    runnable = (8, FLOAT) if target.simulation else (*target.activation_bits, FLOAT)
    for site in compressed.record.plan.sites:
        if site.bits not in runnable:
            raise ExportError(
                explain(
                    f"export for {target.name}",
                    expected=f"activation bits among {sorted(set(runnable))}",
                    got=f"{site.bits} bits at '{site.name}'",
                    remedy="write only the packed file, or choose other bits",
                )
            )
    compressed, inputs = on_cpu(compressed, inputs)
    if target.file_name.endswith(".pt2"):
        write_program(compressed, path, inputs)
    else:
        write_onnx(compressed, path, inputs, runtime=target.runtime)
    packed_path = _packed_path(path)
    size = write_packed(compressed, packed_path)
    check_outputs(compressed, path, inputs, DEFAULT if target.simulation else target)
    beside = weights_beside(path)
    written = path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
    return Artifact(path=path, packed_path=packed_path, size_bytes=size, onnx_bytes=written)


def export_float(compressed: CompressedModel, path: Path, inputs: Inputs) -> Artifact:
    """Write a compressed model as a torch.export program in floating point; see `write_program`.

    Quantised activations are left as they come, so that any PyTorch runs it.

    Raises:
        ExportError: If the model cannot be exported.
    """
    compressed, inputs = on_cpu(compressed, inputs)
    write_program(compressed, path, inputs)
    packed_path = _packed_path(path)
    return Artifact(
        path=path,
        packed_path=packed_path,
        size_bytes=write_packed(compressed, packed_path),
        onnx_bytes=path.stat().st_size,
    )


def _packed_path(path: Path) -> Path:
    return path.with_name("weights.packed" if path.stem == "model" else f"{path.stem}.packed")


def check_outputs(
    compressed: CompressedModel, path: Path, inputs: Inputs, target: Target = DEFAULT
) -> float:
    """Compare all outputs of a file on its target with those of its model, each on its scale.

    The model computes in integers where the file does, so that the two do not
    differ by chance; see `ExactModel`.

    Returns:
        The largest mean difference of a floating-point output, as a fraction
        of its mean magnitude.

    Raises:
        ExportError: If it is larger than `OUTPUT_TOLERANCE`, or the file has
            other outputs.
        WrongTypeError: If no output is a floating-point tensor.
    """
    args, kwargs = inputs
    with torch.no_grad():
        outputs = ExactModel(compressed, inputs)(*args, **kwargs)
    expected = tensors_of(outputs)
    if not any(tensor.is_floating_point() for tensor in expected):
        raise WrongTypeError(
            explain(
                "model output",
                expected="a floating-point tensor",
                got=type(outputs).__name__,
                remedy="wrap the model",
            )
        )
    session = open_model(path, replace(target, threads=1))
    got = session.run(None, feed_of(session, args, kwargs))
    if [array.shape for array in got] != [tuple(tensor.shape) for tensor in expected]:
        raise ExportError(
            explain(
                f"'{path}'",
                expected=f"outputs of shapes {[tuple(tensor.shape) for tensor in expected]}",
                got=[array.shape for array in got],
                remedy="report this model",
            )
        )
    pairs = zip(expected, got, strict=True)
    difference = max(_difference(*pair) for pair in pairs if pair[0].is_floating_point())
    if not difference <= OUTPUT_TOLERANCE:
        raise ExportError(
            explain(
                f"'{path}'",
                expected=f"the model's outputs within {OUTPUT_TOLERANCE:.0%}",
                got=f"a mean difference of {difference:.1%}",
                remedy="compress with QuantisationConfig(reduce_range='on'), since integer "
                f"kernels clip on {target.name}"
                if saturates(target) and not compressed.record.reduced
                else "calibrate on more data, or report this model",
            )
        )
    return difference


def _difference(expected: Tensor, got: NDArray[Any]) -> float:
    """Return the mean difference as a fraction of the mean magnitude; infinite for NaN."""
    wanted = expected.float().cpu().numpy()
    scale = float(np.abs(wanted).mean()) or 1.0
    return float(np.nan_to_num(np.abs(wanted - got).mean() / scale, nan=np.inf))


def feed_of(
    session: Any, values: Iterable[Any], named: Mapping[str, Any] | None = None
) -> dict[str, NDArray[Any]]:
    """Pair the inputs of a session with the tensors of one call.

    Args:
        session: An open file.
        values: Positional arguments; their tensors go in order.
        named: Keyword arguments: their tensors go by name; a single one may have another.

    Raises:
        InvalidInputError: If there are more or fewer tensors than inputs, or several have names
            of none.
    """
    args = list(values)
    call = ExampleCall(args=tuple(args), kwargs=named or {})
    found = list(zip(call.names, call.tensors, strict=True))
    names = [entry.name for entry in session.get_inputs()]
    if len(found) != len(names):
        raise InvalidInputError(
            explain(
                "the inputs",
                expected=f"{len(names)} tensors ({', '.join(names)})",
                got=len(found),
                remedy="call the file as the model that it was exported from",
            )
        )
    start = len(tensors_of(args))
    taken = {name for name, _ in found[start:] if name in names}
    unknown = [name for name, _ in found[start:] if name not in names]
    if len(unknown) > 1:  # which of them is which input, only their order would tell
        raise InvalidInputError(
            explain(
                "the inputs",
                expected=f"the names of the file ({', '.join(names)})",
                got=", ".join(unknown),
                remedy="call the file as the model that it was exported from",
            )
        )
    free = (name for name in names if name not in taken)
    return {
        name if place >= start and name in taken else next(free): _array(tensor)
        for place, (name, tensor) in enumerate(found)
    }


def _array(tensor: Tensor) -> NDArray[Any]:
    if tensor.dtype == torch.bfloat16:
        raise InvalidInputError(
            explain(
                "the inputs",
                expected="numbers of numpy's types",
                got="bfloat16",
                remedy="give them as float32, and a model that takes that",
            )
        )
    array: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    return array


class RuntimeModule(nn.Module):
    """A file that is called like the model it was exported from.

    Args:
        path: The file.
        threads: Threads that one call uses.
        target: The runtime that the file was written for.
        like: Outputs of the model, whose structure (a tuple, a dictionary)
            those of the file take; None returns the first output alone.
    """

    def __init__(
        self, path: Path, *, threads: int = 1, like: Any = None, target: Target = DEFAULT
    ) -> None:
        super().__init__()
        self._session = open_model(path, replace(target, threads=threads))
        self._like = like

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the file on tensors; outputs are on the device of the first."""
        device = tensors_of((args, kwargs))[0].device
        arrays = self._session.run(None, feed_of(self._session, args, kwargs))
        outputs = [torch.from_numpy(array).to(device) for array in arrays]
        return refilled(self._like, outputs) if tensors_of(self._like) else outputs[0]


def on_cpu(compressed: CompressedModel, inputs: Inputs) -> tuple[CompressedModel, Inputs]:
    """Copy a model and its inputs to the CPU, where they are not there yet."""
    if all(parameter.device.type == "cpu" for parameter in compressed.parameters()):
        return compressed, inputs
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.cpu(), (inputs[0], dict(inputs[1])))
    return copy.deepcopy(compressed).cpu(), (args, kwargs)
