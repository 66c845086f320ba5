"""Follow channel labels through one run of a model, operation by operation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autocompress.graph.inputs import tensors_of
from autocompress.graph.labels import OUTPUT, Axes, Labels, Marks
from autocompress.graph.recording import LAYER_TYPES, reads_values

Rule = Callable[..., None]

NORM_TYPES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)

HEAD_SIZES = frozenset(
    {"head_dim", "head_size", "attention_head_size", "dim_head", "dim_per_head", "dim_heads"}
)
"""Attributes that name the width of a head, not how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterAxis:
    """An axis of a parameter or buffer with its own labels.

    Attributes:
        module: Name of the module that owns it.
        key: Name of the parameter or buffer in that module.
        dim: Which axis.
        marks: Its labels, which no other axis was given.
    """

    module: str
    key: str
    dim: int
    marks: Marks


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """A number of channels that the code of a module may name.

    Attributes:
        module: Name of the innermost running module.
        marks: The labels of the channels counted.
        amounts: If padding or splitting took a list of numbers, that list.
        number: And which of them this is.
        is_padding: Whether the channels are zeros that padding put there.
    """

    module: str
    marks: Marks
    amounts: tuple[int, ...] = ()
    number: int = 0
    is_padding: bool = False


class Propagation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model and labels every axis of every tensor.

    Args:
        model: The model; its parameters are labelled first.
        rules: What each operator does to labels, by its name.
    """

    def __init__(self, model: nn.Module, rules: Mapping[str, Rule]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules = rules
        self.labels = Labels()
        self.parameters: list[ParameterAxis] = []
        self.counts: list[Count] = []
        self.contracted: set[int] = set()
        self.attributes: dict[tuple[str, str], Marks] = {}
        self.entered: dict[str, int] = {}
        self.modules = dict(model.named_modules())
        self._stack: list[str] = []
        self._axes: dict[int, Axes] = {}
        self._alive: list[Tensor] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        for name, module in self.modules.items():
            for key, tensor in _own_tensors(module):
                self._label_parameter(name, module, key, tensor)
            self._hooks.append(module.register_forward_pre_hook(self._opening(name)))
            self._hooks.append(module.register_forward_hook(self._close))

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _opening(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: object) -> None:
            self.entered.setdefault(name, len(self.entered))
            if isinstance(module, nn.MultiheadAttention):  # which uses its projection's weight
                self.entered.setdefault(f"{name}.out_proj", len(self.entered))
            self._stack.append(name)

        return enter

    def _close(self, module: nn.Module, args: object, output: object) -> None:
        self._stack.pop()

    def _label_parameter(self, name: str, module: nn.Module, key: str, tensor: Tensor) -> None:
        if id(tensor) in self._axes:
            return
        weak = not isinstance(
            module, (*LAYER_TYPES, *NORM_TYPES, nn.PReLU, nn.Embedding, nn.MultiheadAttention)
        )
        axes: list[Marks | None] = []
        for dim, size in enumerate(tensor.shape):
            marks = None
            if _is_channel_axis(module, dim) and (size > 1 or not weak):
                marks = self.labels.fresh(size, weak=weak)
                self.parameters.append(ParameterAxis(module=name, key=key, dim=dim, marks=marks))
            axes.append(marks)
        self.put(tensor, axes)

    @property
    def scope(self) -> str:
        """Name of the innermost running module."""
        return self._stack[-1] if self._stack else ""

    def scopes(self) -> Iterator[nn.Module]:
        """The innermost running module and the two around it."""
        return (self.modules[name] for name in reversed(self._stack[-3:]))

    def get(self, tensor: object) -> Axes:
        """Return the labels of a tensor's axes; all None if it has none."""
        if not isinstance(tensor, Tensor):
            return ()
        return self._axes.get(id(tensor), (None,) * tensor.dim())

    def put(self, tensor: object, axes: Sequence[Marks | None]) -> None:
        """Give a tensor its labels."""
        if isinstance(tensor, Tensor) and len(axes) == tensor.dim():
            self._axes[id(tensor)] = tuple(axes)
            self._alive.append(tensor)

    def tie(self, *several: Marks | None) -> Marks | None:
        """Tie axes of one length position by position; return the labels of the first."""
        marked = [marks for marks in several if marks is not None]
        for other in marked[1:]:
            if len(other) == len(marked[0]):
                self.labels.union(marked[0], other)
        return marked[0] if marked else None

    def note(
        self,
        marks: Marks | None,
        amounts: object = (),
        number: int = 0,
        *,
        is_padding: bool = False,
    ) -> None:
        """Note that the running code may name a number of channels."""
        if marks is None or not len(marks):
            return
        listed = tuple(amounts) if isinstance(amounts, (tuple, list)) else ()
        self.counts.append(
            Count(
                module=self.scope,
                marks=marks,
                amounts=listed,
                number=number,
                is_padding=is_padding,
            )
        )

    def head_counts(self) -> set[int]:
        """Numbers of attention heads that the running modules know of."""
        return {
            value for name, value in self._integers() if "head" in name and name not in HEAD_SIZES
        }

    def head_sizes(self) -> set[int]:
        """Widths of attention heads that the running modules know of."""
        return {value for name, value in self._integers() if name in HEAD_SIZES}

    def _integers(self) -> Iterator[tuple[str, int]]:
        for module in self.scopes():
            for name, value in vars(module).items():
                if type(value) is int:
                    yield name, value

    def mark_outputs(self, tensors: Sequence[Tensor]) -> None:
        """Refuse every channel that reaches the model's output."""
        for tensor in tensors:
            for marks in self.get(tensor):
                self.labels.refuse(marks, OUTPUT)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = list(tensors_of((args, kwargs)))
        if any(marks is not None for tensor in given for marks in self.get(tensor)):
            name = func.overloadpacket.__name__
            rule = self.rules.get(name)
            if rule is None and torch.Tag.pointwise in func.tags:
                rule = self.rules["pointwise"]
            if rule is not None:
                rule(self, result, *args, **kwargs)
            elif reads_values(name) and any(tensor.dim() for tensor in tensors_of(result)):
                for tensor in given:
                    for marks in self.get(tensor):
                        self.labels.refuse(marks, f"unsupported operator '{name}'")
        return result


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in (
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ):
        if tensor.is_floating_point():
            yield key, tensor


def _is_channel_axis(module: nn.Module, dim: int) -> bool:
    """Whether positions along an axis of a module's tensor can be channels."""
    if isinstance(module, nn.Embedding):
        return dim == 1
    if isinstance(module, nn.modules.conv._ConvNd):
        return dim < 2  # not the axes of the kernel
    return True
