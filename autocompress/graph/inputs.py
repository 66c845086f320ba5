"""Example inputs in one form, however the caller gave them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from autocompress.errors import InvalidInputError, TraceError, WrongTypeError, explain

M = TypeVar("M", bound=nn.Module)

EXAMPLES = 2
"""Examples that the structural checks run on: enough for a batch axis to show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInputs:
    """The arguments of one forward call.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, example_inputs: object) -> "ModelInputs":
        """Normalise example inputs.

        Args:
            example_inputs: A tensor, a tuple of positional arguments, or a
                dictionary of keyword arguments; batch axis first. What is
                normalised already stays as it is.

        Raises:
            WrongTypeError: If it is none of these.
            InvalidInputError: If it holds no tensor with a batch axis.

        Example:
            >>> ModelInputs.of(torch.zeros(2, 3)).batch_size
            2
        """
        if isinstance(example_inputs, ModelInputs):
            return example_inputs
        if isinstance(example_inputs, Tensor):
            inputs = cls(args=(example_inputs,))
        elif isinstance(example_inputs, (tuple, list)):
            inputs = cls(args=tuple(example_inputs))
        elif isinstance(example_inputs, Mapping):
            inputs = cls(kwargs=dict(example_inputs))
        else:
            raise WrongTypeError(
                explain(
                    "'example_inputs'",
                    expected="a tensor, a tuple of tensors or a dict of tensors",
                    got=type(example_inputs).__name__,
                    remedy="give one batch as the model's forward takes it",
                )
            )
        tensors = inputs.tensors
        if not tensors or tensors[0].dim() == 0 or tensors[0].shape[0] == 0:
            raise InvalidInputError(
                explain(
                    "'example_inputs'",
                    expected="at least one example with a batch axis",
                    got=tuple(tensors[0].shape) if tensors else "no tensor",
                    remedy="give one batch as the model's forward takes it",
                )
            )
        return inputs

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        values = (*self.args, *self.kwargs.values())
        return [value for value in values if isinstance(value, Tensor)]

    @property
    def batch_size(self) -> int:
        """Length of the first tensor's first axis."""
        return self.tensors[0].shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "ModelInputs":
        """Return inputs whose tensors are changed by a function."""
        return ModelInputs(
            args=tuple(change(v) if isinstance(v, Tensor) else v for v in self.args),
            kwargs={k: change(v) if isinstance(v, Tensor) else v for k, v in self.kwargs.items()},
        )

    def plain(self) -> "ModelInputs":
        """Return a detached copy on the CPU: at most two examples, floats as float32."""
        batch = self.batch_size

        def convert(tensor: Tensor) -> Tensor:
            if tensor.dim() and tensor.shape[0] == batch:
                tensor = tensor[:EXAMPLES]
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            return tensor.detach().to(device="cpu", dtype=dtype, copy=True)

        return self.map(convert)

    def run(self, model: nn.Module) -> object:
        """Call a model with these inputs."""
        return model(*self.args, **self.kwargs)


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU in float32 and evaluation mode; the original is untouched.

    Raises:
        WrongTypeError: If it is not a module.
        TraceError: If it cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise WrongTypeError(
            explain(
                "'model'",
                expected="a torch.nn.Module",
                got=type(model).__name__,
                remedy="give the trained module itself, not its weights or its path",
            )
        )
    try:
        return copy.deepcopy(model).cpu().float().eval()
    except Exception as error:
        raise TraceError(
            explain(
                f"model {type(model).__name__}",
                expected="a module that copy.deepcopy can copy",
                got=one_line(error),
                remedy="keep no tensors with a history as attributes",
            )
        ) from error


def trainable(model: M) -> M:
    """Let every parameter of a model be trained that can be, and return the model.

    Example:
        >>> trainable(nn.Linear(2, 2).requires_grad_(False)).weight.requires_grad
        True
    """
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return model


def output_tensors(output: object) -> list[Tensor]:
    """List the tensors of a model's output, nested ones included.

    Example:
        >>> len(output_tensors({"logits": torch.zeros(1), "states": (torch.zeros(1), None)}))
        2
    """
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in output_tensors(value)]
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in output_tensors(value)]
    return []


def one_line(error: Exception) -> str:
    """Name an error and the first line of its message.

    Example:
        >>> one_line(RuntimeError("bad shape"))
        'RuntimeError: bad shape'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
