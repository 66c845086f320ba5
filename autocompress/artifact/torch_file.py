"""Write a compressed model as a torch.export program, for targets that run PyTorch."""

import copy
import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from autocompress.artifact.example_call import ExampleCall
from autocompress.artifact.onnx_file import quiet
from autocompress.core.files import write_bytes
from autocompress.errors import ExportError, InvalidInputError, MissingFileError, explain
from autocompress.graph.inputs import one_line
from autocompress.graph.operations import Inputs
from autocompress.transform.compressed import CompressedModel

NAMES = "input_names.json"
"""What is kept beside a program: names of its inputs, which tell keywords apart."""


def write_program(compressed: CompressedModel, path: Path, inputs: Inputs) -> None:
    """Export a compressed model as a .pt2 file; the batch axis is dynamic.

    PyTorch computes in floating point: quantised weights are written as the
    values that their codes stand for.

    Args:
        compressed: A model without quantised activations; put in eval mode.
        path: The file to write.
        inputs: Positional and keyword arguments of one forward call.

    Raises:
        ExportError: If the model cannot be exported.
    """
    compressed.eval()
    network = copy.deepcopy(compressed.network)
    with torch.no_grad():
        for name in compressed.record.quantised:
            weight = network.get_submodule(name).get_parameter("weight")
            weight.copy_(compressed.quantised_weight(name).values())
    call = ExampleCall.of(inputs)
    with torch.no_grad(), quiet():
        try:
            program = torch.export.export(
                _OfTensors(network, call).eval(),
                call.tensors,
                dynamic_shapes=(call.dynamic_shapes,),
                strict=False,
            )
        except Exception as error:
            raise ExportError(
                explain(
                    "export",
                    expected="a model that torch.export takes",
                    got=one_line(error),
                    remedy="simplify the forward pass, or compress a submodule",
                )
            ) from error
        names = {NAMES: json.dumps(call.names)}
        whole = io.BytesIO()  # where the disk is full, PyTorch's own writer ends the process
        torch.export.save(program, whole, extra_files=names)
        write_bytes(path, whole.getvalue())


def read_program(path: Path) -> "torch.export.ExportedProgram":
    """Read a file that `write_program` wrote; see `read_named_program`."""
    return read_named_program(path)[0]


def read_named_program(path: Path) -> tuple["torch.export.ExportedProgram", list[str]]:
    """Read a file that `write_program` wrote, with the names of its inputs.

    Returns:
        The program, and what its inputs are called: keywords, or numbers where there are none;
        empty for programs of other origin.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is not an exported program.
    """
    if not path.is_file():
        raise MissingFileError(
            explain(f"'{path}'", expected="a .pt2 file", got="nothing there", remedy="check it")
        )
    try:
        with quiet():
            extra = {NAMES: ""}
            program = torch.export.load(path, extra_files=extra)
            return program, [str(name) for name in json.loads(extra[NAMES] or "[]")]
    except Exception as error:  # what torch asserts and decodes of a damaged file is its own
        raise InvalidInputError(
            explain(
                f"'{path}'",
                expected="a program that torch.export wrote",
                got=one_line(error),
                remedy="export the model for this target again",
            )
        ) from error


class _OfTensors(nn.Module):
    """A model that is called with the tensors of a call alone."""

    def __init__(self, network: nn.Module, call: ExampleCall) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *tensors: Tensor) -> object:
        args, kwargs = self.call.filled(tensors)
        return self.network(*args, **kwargs)
