"""One call of a model as a file sees it: tensors are its inputs, all else is fixed in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from autocompress.graph.operations import Inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleCall:
    """The arguments of one forward call, to capture it with.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Inputs) -> "ExampleCall":
        """Repeat one example, since tracing with a batch of one would fix the batch axis."""
        args, kwargs = tree_map_only(Tensor, _twice, (tuple(inputs[0]), dict(inputs[1])))
        return cls(args=args, kwargs=kwargs)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs of the file, in order."""
        return tuple(tensors_of((self.args, self.kwargs)))

    @property
    def names(self) -> list[str]:
        """What the file calls each of them: a keyword, or a number where there is none."""
        named = [(f"input_{place}", value) for place, value in enumerate(self.args)]
        return _unlike(
            name if value is leaf else f"{name}_{number}"
            for name, value in (*named, *self.kwargs.items())
            for number, leaf in enumerate(tree_leaves(value))
            if isinstance(leaf, Tensor)
        )

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any] | None, ...]:
        """Say that the first axis of every tensor is open, as torch.export wants it."""
        return tuple({0: torch.export.Dim("batch")} if t.dim() else None for t in self.tensors)

    def filled(self, tensors: Iterable[Tensor]) -> Inputs:
        """Return the arguments with other tensors in their places."""
        args, kwargs = refilled((self.args, self.kwargs), tensors)
        return args, kwargs


def tensors_of(value: Any) -> list[Tensor]:
    """List the tensors in a structure that torch.export knows, in order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def refilled(value: Any, tensors: Iterable[Tensor]) -> Any:
    """Return a structure with other tensors in the places of its own."""
    left = iter(tensors)
    return tree_map_only(Tensor, lambda _: next(left), value)


def _unlike(names: Iterable[str]) -> list[str]:
    """Append to names that came before, as where a keyword is called like a place."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found


def _twice(tensor: Tensor) -> Tensor:
    return tensor[:1].repeat(2, *([1] * (tensor.dim() - 1))) if tensor.dim() else tensor
