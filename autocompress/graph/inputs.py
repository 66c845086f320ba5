"""Example inputs in one form, however the caller gave them."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import ModuleType
from typing import Any, TypeVar, cast

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
        leading = inputs.leading
        if leading is None or leading.dim() == 0 or leading.shape[0] == 0:
            raise InvalidInputError(
                explain(
                    "'example_inputs'",
                    expected="at least one example with a batch axis",
                    got="no tensor" if leading is None else tuple(leading.shape),
                    remedy="give one batch as the model's forward takes it",
                )
            )
        return inputs

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of the arguments, those inside of containers included, in order."""
        return list(tensors_of((self.args, self.kwargs)))

    @property
    def leading(self) -> Tensor | None:
        """The first argument that is a tensor, else the first tensor inside of one."""
        values = (*self.args, *self.kwargs.values())
        given = (value for value in values if isinstance(value, Tensor))
        return next(given, next(tensors_of(values), None))

    @property
    def batch_size(self) -> int:
        """Length of the leading tensor's first axis."""
        return 1 if self.leading is None else self.leading.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "ModelInputs":
        """Return inputs whose tensors are changed by a function."""
        return ModelInputs(
            args=tuple(_changed(value, change) for value in self.args),
            kwargs={key: _changed(value, change) for key, value in self.kwargs.items()},
        )

    def first(self, examples: int) -> "ModelInputs":
        """Return inputs with that many of the examples, at most."""
        batch = self.batch_size
        return self.map(lambda t: t[:examples] if t.dim() and t.shape[0] == batch else t)

    def repeated(self, times: int) -> "ModelInputs":
        """Return inputs with every example so many times."""
        batch = self.batch_size

        def repeat(tensor: Tensor) -> Tensor:
            if tensor.dim() and tensor.shape[0] == batch:
                return tensor.repeat(times, *[1] * (tensor.dim() - 1))
            return tensor

        return self.map(repeat)

    def plain(self, examples: int = EXAMPLES) -> "ModelInputs":
        """Return a detached copy on the CPU: that many examples at most, floats as float32."""

        def convert(tensor: Tensor) -> Tensor:
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            return tensor.detach().to(device="cpu", dtype=dtype, copy=True)

        return self.first(examples).map(convert)

    def run(self, model: nn.Module) -> object:
        """Call a model with these inputs."""
        return model(*self.args, **self.kwargs)

    def run_alike(self, model: nn.Module) -> list[Tensor]:
        """Call a model without gradients; what it draws at random is the same every time.

        Returns:
            The tensors of its output.
        """
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # of the CPU, unlike torch.manual_seed
            return output_tensors(self.run(model))


def tensors_of(value: object) -> Iterator[Tensor]:
    """Iterate over the tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


def _changed(value: object, change: Callable[[Tensor], Tensor]) -> object:
    """Change the tensors inside of tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return change(value)
    if not any(True for _ in tensors_of(value)):
        return value
    kind: Any = type(value)
    if isinstance(value, Mapping):
        changed = {key: _changed(item, change) for key, item in value.items()}
        if isinstance(value, defaultdict):
            return defaultdict(value.default_factory, changed)
        return changed if kind is dict else kind(changed)
    items = [_changed(item, change) for item in cast("Sequence[object]", value)]
    return getattr(kind, "_make", kind)(items)  # of named tuples


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
    """List the tensors of a model's output, nested ones and those of objects included.

    Example:
        >>> len(output_tensors({"logits": torch.zeros(1), "states": (torch.zeros(1), None)}))
        2
    """
    return list(_tensors_inside(output, set()))


def _tensors_inside(value: object, seen: set[int]) -> Iterator[Tensor]:
    """Iterate over tensors in order; what holds itself is entered once."""
    if isinstance(value, Tensor):
        yield value
        return
    items = _items(value)
    if not items or id(value) in seen:
        return
    seen.add(id(value))
    for item in items:
        yield from _tensors_inside(item, seen)
    seen.discard(id(value))


def _items(value: object) -> list[object]:
    """List what a container or an object holds; types, functions and modules hold nothing."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, (type, ModuleType)) or callable(value):
        return []
    if is_dataclass(value):
        return [getattr(value, entry.name, None) for entry in fields(value)]
    return list(getattr(value, "__dict__", {}).values())


def training_failure(model: nn.Module, inputs: ModelInputs) -> str:
    """Run a model in training mode, in which it is left; return what it raises, or ""."""
    try:
        inputs.run_alike(model.train())
    except Exception as error:
        return one_line(error)
    return ""


def one_line(error: Exception) -> str:
    """Name an error and the first line of its message.

    Example:
        >>> one_line(RuntimeError("bad shape"))
        'RuntimeError: bad shape'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
