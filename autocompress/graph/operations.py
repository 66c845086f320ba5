"""The operations that a model runs, in order: recorded once, derived without blocks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from autocompress.graph.attention_product import FUSED, attention
from autocompress.graph.inputs import output_tensors

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]

LAYER_FUNCTIONS = frozenset(
    {
        *("conv1d", "conv2d", "conv3d", "linear", "embedding"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    }
)
_SIGNATURES = {
    "linear": ("input", "weight", "bias"),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    ),
}
_DEFAULTS = {
    "bias": None,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
}
_WHOLE = ("input", "weight", "bias", "groups")
"""Arguments of layer functions, and which of them are not one per axis."""

LAYER_KINDS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)
ADD_FUNCTIONS = frozenset({"add", "__add__", "__radd__", "__iadd__", "add_"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedOperation:
    """One operation that returns tensors of floating-point numbers.

    Attributes:
        kind: Name of the function; "relu6" for a `hardtanh` from zero on, as nn.ReLU6 calls it.
        inputs: Numbers of the floating-point tensors that it reads; the
            inputs of the model are -1, -2, ...
        outputs: How many floating-point tensors it returns; they take the
            next numbers.
        owner: The layer or batch norm that owns its second operand, or "".
        residual: Whether it adds two floating-point tensors of one shape, as
            branches are.
        sizes: Elements of each output for one example; traces that differ
            in these, or in what follows, alone are equal.
        shapes: Shape of each output, for all examples.
        window: Window of a pool per spatial axis, as it was given; () for
            other operations, and where the output size was given instead.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: int
    owner: str
    residual: bool
    sizes: tuple[int, ...] = field(default=(), compare=False)
    shapes: tuple[tuple[int, ...], ...] = field(default=(), compare=False)
    window: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSpan:
    """Where a block runs.

    Attributes:
        name: The block.
        start: Number of operations before it.
        stop: Number of operations up to its end.
        before: Number of the tensor that it takes.
        after: Number of the tensor that it returns.
    """

    name: str
    start: int
    stop: int
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationTrace:
    """The operations of one run of a model.

    Attributes:
        operations: In the order of execution.
        spans: The blocks that were watched, in that order too.
        outputs: Numbers of the tensors that the model returns.
        examples: How many there were.
    """

    operations: tuple[TracedOperation, ...]
    spans: tuple[BlockSpan, ...] = ()
    outputs: tuple[int, ...] = ()
    examples: int = field(default=1, compare=False)

    def without(
        self, blocks: Sequence[str], branches: Collection[str] = ()
    ) -> "OperationTrace | None":
        """Derive the operations that are left when blocks become the identity or zero.

        Args:
            blocks: Names of watched blocks.
            branches: Names of blocks that become zero, which is no tensor of the run.

        Returns:
            The trace, as recording the model without those blocks would
            give it; None if other operations read from inside a block, so
            that this cannot be told.
        """
        starts = {span.start: span for span in self.spans if span.name in blocks}
        if len(starts) < len(set(blocks)):
            return None
        renamed: dict[int, int | None] = {}
        kept: list[TracedOperation] = []
        old = new = position = 0
        while position < len(self.operations):
            span = starts.pop(position, None)
            if span is not None:
                if span.before >= 0 and span.before not in renamed:
                    return None
                inside = self.operations[span.start : span.stop]
                old += sum(operation.outputs for operation in inside)
                before = renamed.get(span.before, span.before)
                renamed[span.after] = None if span.name in branches else before
                position = span.stop
                continue
            operation = self.operations[position]
            if any(number >= 0 and number not in renamed for number in operation.inputs):
                return None
            new_inputs = [renamed.get(number, number) for number in operation.inputs]
            inputs = tuple(number for number in new_inputs if number is not None)
            residual = operation.residual and len(inputs) == len(new_inputs)
            for _ in range(operation.outputs):
                renamed[old] = new
                old, new = old + 1, new + 1
            kept.append(replace(operation, inputs=inputs, residual=residual))
            position += 1
        if any(number >= 0 and number not in renamed for number in self.outputs):
            return None
        outputs = [renamed.get(number, number) for number in self.outputs]
        return OperationTrace(
            operations=tuple(kept),
            outputs=tuple(number for number in outputs if number is not None),
            examples=self.examples,
        )


class _Recorder(TorchFunctionMode):
    """Numbers every tensor that operations return, and notes who reads it."""

    def __init__(self, owners: Mapping[int, str], examples: int) -> None:
        super().__init__()
        self.owners, self.examples = owners, examples
        self.alive: list[Tensor] = []
        self.number: dict[int, int] = {}
        self.count = 0
        self.operations: list[TracedOperation] = []
        self.spans: list[BlockSpan] = []

    def register(self, tensor: Tensor, number: int) -> None:
        self.alive.append(tensor)
        self.number[id(tensor)] = number

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = getattr(func, "__name__", "")
        args, kwargs = layer_arguments(kind, args, kwargs)
        if kind == FUSED:
            with self:
                return attention(*args, **kwargs)
        inputs = [self.number[id(t)] for t in tensors_in((args, kwargs)) if id(t) in self.number]
        residual = kind in ADD_FUNCTIONS and _same_shape(args)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if outputs:
            self.operations.append(
                TracedOperation(
                    kind=_told_apart(kind, args, kwargs),
                    inputs=tuple(inputs),
                    outputs=len(outputs),
                    owner=operand_owner(args, self.owners),
                    residual=residual,
                    sizes=tuple(max(1, t.numel() // self.examples) for t in outputs),
                    shapes=tuple(tuple(t.shape) for t in outputs),
                    window=_window(kind, args, kwargs),
                )
            )
        for tensor in outputs:
            self.register(tensor, self.count)
            self.count += 1
        return result

    def watch(self, name: str, block: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Note where a block starts and stops; blocks take and return one tensor."""
        begun: list[tuple[int, int | None]] = []

        def start(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            begun.append((len(self.operations), self.number.get(id(args[0]))))

        def stop(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            position, before = begun.pop()
            after = self.number.get(id(output))
            if before is not None and after is not None:
                self.spans.append(
                    BlockSpan(
                        name=name,
                        start=position,
                        stop=len(self.operations),
                        before=before,
                        after=after,
                    )
                )

        return [block.register_forward_pre_hook(start), block.register_forward_hook(stop)]


def record_operations(
    model: nn.Module, inputs: Inputs, blocks: Sequence[str] = ()
) -> OperationTrace:
    """Run a model once and note its operations.

    Args:
        model: In eval mode; not changed.
        inputs: Positional and keyword arguments of one forward call.
        blocks: Names of modules to note the extent of; each runs once, and
            takes and returns one tensor.
    """
    args, kwargs = inputs
    examples = next((len(t) for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.dim()), 1)
    recorder = _Recorder(weight_owners(model) | norm_owners(model), max(1, examples))
    for position, tensor in enumerate(tensors_in((args, kwargs))):
        recorder.register(tensor, -1 - position)
    hooks = [hook for name in blocks for hook in recorder.watch(name, model.get_submodule(name))]
    try:
        with torch.no_grad(), recorder:
            returned = model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return OperationTrace(
        operations=tuple(recorder.operations),
        spans=tuple(recorder.spans),
        outputs=tuple(
            recorder.number[id(t)] for t in output_tensors(returned) if id(t) in recorder.number
        ),
        examples=recorder.examples,
    )


def tensors_in(value: object) -> list[Tensor]:
    """List the floating-point tensors in nested arguments, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def like(sequence: Sequence[Any], items: list[Any]) -> Sequence[Any]:
    """Make a list or a tuple of other items, with the names that the first one's have."""
    kind: Any = type(sequence)
    made: Sequence[Any] = getattr(kind, "_make", kind)(items)  # of named tuples
    return made


def layer_arguments(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Write a call of a layer function as a layer's own module does.

    Args:
        name: The function.
        args: Its positional arguments.
        kwargs: Those by name.

    Returns:
        All of a convolution's or a linear layer's arguments by position, with one number per axis
        where there may be, and no others; what is given of any other function.

    Example:
        >>> args, _ = layer_arguments("conv1d", ("x", torch.ones(4, 2, 3)), {"padding": 1})
        >>> args[2:]
        (None, (1,), (1,), (1,), 1)
    """
    names = _SIGNATURES.get(name)
    if names is None or (len(args) == len(names) and not _loose(args[3:])):
        return args, kwargs
    given = {**_DEFAULTS, **dict(zip(names, args, strict=False)), **kwargs}
    if not {*given} >= {*names}:
        return args, kwargs  # the function says what it lacks
    axes = given["weight"].dim() - 2
    listed = [given[key] if key in _WHOLE else _per_axis(given[key], axes) for key in names]
    return tuple(listed), {}


def _loose(arguments: Sequence[Any]) -> bool:
    """Tell whether the settings of a convolution are not all written per axis."""
    return sum(isinstance(value, int) for value in arguments) > 1


def _per_axis(value: Any, axes: int) -> Any:
    """Repeat one number for each axis; a padding may also be a word."""
    if isinstance(value, str):
        return value
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * axes if len(numbers) == 1 else numbers


def operand_owner(args: Sequence[Any], owners: Mapping[int, str]) -> str:
    """Name the module that owns the second operand of a call, or "".

    Args:
        args: Positional arguments of the call.
        owners: As `weight_owners` or `norm_owners` returns them.
    """
    return owners.get(id(args[1]), "") if len(args) > 1 else ""


def weight_owners(model: nn.Module) -> dict[int, str]:
    """Map the identity of each convolution, linear or embedding weight to its layer's name."""
    return {id(m.weight): name for name, m in model.named_modules() if isinstance(m, LAYER_KINDS)}


def norm_owners(model: nn.Module) -> dict[int, str]:
    """Map the identity of each batch norm's running mean to its module's name."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {
        id(m.running_mean): name
        for name, m in model.named_modules()
        if isinstance(m, kinds) and m.running_mean is not None
    }


def _told_apart(kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Name an operation; a `hardtanh` that cuts off negative numbers alone is a "relu6".

    Only that one is part of a rounding: codes of its grid end at zero, as its values do.
    """
    lowest = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
    return "relu6" if kind == "hardtanh" and lowest == 0 else kind


def _window(kind: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the window of a pool off its arguments; adaptive ones are given none."""
    if "pool" not in kind or kind.startswith("adaptive"):
        return ()
    given = kwargs.get("kernel_size", args[1] if len(args) > 1 else ())
    return (given,) if isinstance(given, int) else tuple(given)


def _same_shape(args: tuple[Any, ...]) -> bool:
    if len(args) < 2 or not (isinstance(args[0], Tensor) and isinstance(args[1], Tensor)):
        return False
    return args[0].shape == args[1].shape and args[0].dim() > 1 and args[0].is_floating_point()
