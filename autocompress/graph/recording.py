"""One observed run of a model: which modules ran, on which shapes, and where tensors met."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autocompress.errors import TraceError, explain
from autocompress.graph.dataflow import Dataflow
from autocompress.graph.inputs import ModelInputs, one_line, output_tensors, tensors_of
from autocompress.graph.operations import (
    LAYER_FUNCTIONS,
    layer_arguments,
    operand_owner,
    tensors_in,
    weight_owners,
)
from autocompress.graph.structure import Operation

LAYER_TYPES = (nn.modules.conv._ConvNd, nn.Linear)
"""The module types that count as layers."""

ADD_FUNCTIONS = frozenset({"add", "add_"})
FORM_FUNCTIONS = frozenset({"to", "type_as", "expand_as", "view_as", "reshape_as"})
"""Functions that read the type or the shape of their second argument, not its values."""

JOIN_FUNCTIONS = frozenset({"cat", "concat", "concatenate"})


def reads_values(function: str) -> bool:
    """Whether a function reads more of its tensors than their type and form, by its name.

    Example:
        >>> reads_values("zeros_like"), reads_values("relu")
        (False, True)
    """
    return not (function.startswith("new_") or function.endswith("_like"))


@dataclass(kw_only=True, slots=True)
class ModuleCall:
    """One execution of one module; the lists of shapes have the batch axis.

    Attributes:
        name: Fully qualified module name.
        module: The module.
        input_shapes: Shapes of its tensor arguments.
        leading: Whether its first argument is a tensor, given by position.
        output_shape: Shape of its output; None unless that is one tensor.
        joins: Whether two tensors are added inside, none of them its input.
        adds_input: Whether its first input is added inside.
    """

    name: str
    module: nn.Module
    input_shapes: tuple[tuple[int, ...], ...]
    leading: bool
    output_shape: tuple[int, ...] | None = None
    joins: bool = False
    adds_input: bool = False


@dataclass(kw_only=True, slots=True)
class Branch:
    """What a sum adds to the tensor that it was made from.

    Attributes:
        calls: The outermost module executions with layers that make it, in
            the order of execution, at least one.
        scope: Name of the innermost module whose forward runs the sum.
    """

    calls: list[ModuleCall]
    scope: str


@dataclass(kw_only=True, slots=True)
class Recording:
    """What one run showed.

    Attributes:
        calls: Module executions in the order in which they began.
        operations: Adds and concatenations in the order of execution.
        branches: Branches of residual sums in that order.
        computed: Layers of whose weights something else is made than the layer's own product.
        batch_size: Examples in the run.
    """

    calls: list[ModuleCall] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)
    batch_size: int

    def runs(self, name: str) -> int:
        """Count the executions of a module."""
        return sum(call.name == name for call in self.calls)


@dataclass(slots=True)
class _Frame:
    """A running module with its arguments, which are compared by identity."""

    call: ModuleCall
    number: int
    tensors: list[Tensor]
    layers: int


class _Recorder(TorchFunctionMode):
    """Notes functional adds and concatenations, and which modules were running then."""

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.recording = Recording(batch_size=batch_size)
        self.flow = Dataflow()
        self.owners = weight_owners(model)
        self.stack: list[_Frame] = []
        self.layers = {
            module: sum(isinstance(inner, LAYER_TYPES) for inner in module.modules())
            for module in model.modules()
        }
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []
        for name, module in model.named_modules():
            self.hooks.append(
                module.register_forward_pre_hook(self._opening(name), with_kwargs=True)
            )
            self.hooks.append(module.register_forward_hook(self._close))

    def _opening(self, name: str) -> Callable[..., None]:
        def open_call(
            module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
        ) -> None:
            tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
            call = ModuleCall(
                name=name,
                module=module,
                input_shapes=tuple(tuple(tensor.shape) for tensor in tensors),
                leading=bool(args) and isinstance(args[0], Tensor),
            )
            number = len(self.recording.calls)
            self.recording.calls.append(call)
            self.stack.append(_Frame(call, number, tensors, self.layers[module]))

        return open_call

    def _close(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        call = self.stack.pop().call
        call.output_shape = tuple(output.shape) if isinstance(output, Tensor) else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = list(tensors_of((args, kwargs)))
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        self._note_weights(name, args, kwargs, result)
        operands: list[Tensor] = []
        if name in ADD_FUNCTIONS and self._batched(result):
            operands = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)][:2]
        residual = len(operands) == 2 and operands[0].shape == operands[1].shape
        if residual:
            self._note("add", result, self._note_branch(operands))
            self._note_add(operands)
        elif name in JOIN_FUNCTIONS and self._batched(result):
            self._note("cat", result)
        self.flow.note(list(tensors_of(result)), given, self._running())
        if residual:
            self.flow.note_sum(result)
        return result

    def _note_weights(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: object
    ) -> None:
        """Note the weights that a tensor is made of, unless by the function of a layer."""
        if not reads_values(name) or not any(True for _ in tensors_of(result)):
            return
        if name in FORM_FUNCTIONS:
            args, kwargs = args[:1], {}
        read = [self.owners.get(id(tensor), "") for tensor in tensors_in((args, kwargs))]
        if name in LAYER_FUNCTIONS and any(read):
            args, kwargs = layer_arguments(name, args, kwargs)
            read.remove(operand_owner(args, self.owners))
        self.recording.computed.update(filter(None, read))

    def _running(self) -> list[int]:
        """Number the executions of modules with layers that have not ended."""
        return [frame.number for frame in self.stack if frame.layers]

    def _batched(self, result: object) -> bool:
        return (
            isinstance(result, Tensor)
            and result.dim() >= 2
            and result.shape[0] == self.recording.batch_size
        )

    @property
    def _scope(self) -> str:
        return self.stack[-1].call.name if self.stack else ""

    def _note(self, kind: str, result: Tensor, branch: str = "") -> None:
        self.recording.operations.append(
            Operation(kind=kind, scope=self._scope, shape=tuple(result.shape[1:]), branch=branch)
        )

    def _note_branch(self, operands: Sequence[Tensor]) -> str:
        """Note the branch that a sum adds; return the module that makes it, if it is one."""
        made = self.flow.branch(operands, self._running())
        if not made:
            return ""
        calls = [self.recording.calls[number] for number in made]
        self.recording.branches.append(Branch(calls=calls, scope=self._scope))
        return calls[0].name if len(calls) == 1 else ""

    def _note_add(self, operands: Sequence[Tensor]) -> None:
        """Mark the modules whose first input is added, else the one that joins branches."""
        adding = [
            frame.call
            for frame in self.stack
            if frame.layers
            and frame.tensors
            and any(frame.tensors[0] is operand for operand in operands)
        ]
        for call in adding:
            call.adds_input = True
        if not adding:
            joining = [frame.call for frame in self.stack if frame.layers >= 2]
            for call in joining[-1:]:
                call.joins = True


def record(model: nn.Module, inputs: ModelInputs) -> Recording:
    """Run a model once and note what runs.

    Args:
        model: A private copy in evaluation mode.
        inputs: What it is called with.

    Raises:
        TraceError: If the model does not run on the inputs, or returns no tensor.
    """
    recorder = _Recorder(model, inputs.batch_size)
    try:
        with torch.no_grad(), recorder:
            returned = inputs.run(model)
    except Exception as error:
        raise TraceError(
            explain(
                f"model {type(model).__name__}",
                expected="a forward pass on the example inputs",
                got=one_line(error),
                remedy="give inputs of the shapes and types that its forward takes",
            )
        ) from error
    finally:
        for hook in recorder.hooks:
            hook.remove()
    if not output_tensors(returned):
        raise TraceError(
            explain(
                f"output of {type(model).__name__}",
                expected="a tensor, or a container or object that holds one",
                got=type(returned).__name__,
                remedy="return tensors from its forward pass",
            )
        )
    return recorder.recording


def call_macs(call: ModuleCall, batch_size: int) -> int:
    """Count the multiply-accumulates of one layer execution, for one example.

    Every weight of a convolution meets each output position once, each weight
    of a transposed one each input position; biases are not counted.

    Args:
        call: An execution of a convolution or linear layer.
        batch_size: Examples in the run.
    """
    module = call.module
    weight: Tensor = module.weight  # type: ignore[assignment]
    transposed = getattr(module, "transposed", False)
    elements = call.input_shapes[0] if transposed else call.output_shape
    return math.prod(elements or ()) * math.prod(weight.shape[1:]) // batch_size
