"""Residual blocks that the identity can replace."""

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from autocompress.graph.inputs import ModelInputs, one_line, output_tensors
from autocompress.graph.recording import ModuleCall, Recording
from autocompress.graph.structure import Block, Layer


def find_blocks(
    model: nn.Module, inputs: ModelInputs, recording: Recording, layers: Sequence[Layer]
) -> tuple[Block, ...]:
    """Find the residual blocks, and say of each whether it can be dropped.

    A residual block is the innermost module that can be dropped and in which
    its own first input is added to what its layers made of it, such as a whole
    encoder layer. Modules that join branches and change the shape are listed
    too, as blocks that cannot be dropped.

    Args:
        model: A private copy in evaluation mode; left as it is.
        inputs: What it is called with.
        recording: An observed run of it.
        layers: The layers that ran.

    Returns:
        The blocks in order of execution; none lies inside another.
    """
    found: dict[str, str] = {}
    for call in recording.calls:
        if call.name and call.name not in found and (call.adds_input or _reshapes(call)):
            found[call.name] = _structural_reason(call, recording)
    innermost = {name: reason for name, reason in found.items() if _is_listed(name, found)}
    sound = [name for name, reason in innermost.items() if not reason]
    if sound and _failure_without(model, inputs, sound):
        innermost |= {name: _failure_without(model, inputs, [name]) for name in sound}
    return tuple(
        Block(
            name=name,
            layers=tuple(layer.name for layer in layers if layer.name.startswith(f"{name}.")),
            droppable=not reason,
            reason=reason,
        )
        for name, reason in innermost.items()
    )


def drop_blocks(model: nn.Module, names: Sequence[str]) -> None:
    """Replace modules by the identity, in place.

    Args:
        model: The model to change.
        names: Fully qualified names of droppable blocks.
    """
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Passthrough(model.get_submodule(name)))


class Passthrough(nn.Identity):
    """The identity on the first argument; further ones, such as masks, are ignored.

    Args:
        replaced: The module that it stands for.
    """

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__()
        attention = getattr(replaced, "self_attn", None)
        if isinstance(attention, nn.MultiheadAttention):  # an nn.TransformerEncoder asks for this
            self.self_attn = SimpleNamespace(batch_first=attention.batch_first)

    def forward(self, input: Tensor, *_: object, **__: object) -> Tensor:
        """Return the first argument."""
        return input


def _is_listed(name: str, found: Mapping[str, str]) -> bool:
    """Prefer the innermost block that can be dropped, and any such to one that cannot."""
    inside = [other for other in found if other.startswith(f"{name}.")]
    around = [other for other in found if name.startswith(f"{other}.")]
    if not found[name]:
        return all(found[other] for other in inside)
    return not inside and all(found[other] for other in around)


def _reshapes(call: ModuleCall) -> bool:
    return call.joins and bool(call.input_shapes) and call.output_shape != call.input_shapes[0]


def _structural_reason(call: ModuleCall, recording: Recording) -> str:
    """Say why the identity cannot stand in for a module; "" if it can."""
    if recording.runs(call.name) > 1:
        return "runs more than once"
    if not call.leading:
        return "takes its first input by name"
    if call.output_shape is None:
        return "returns other than one tensor"
    if call.output_shape != call.input_shapes[0]:
        before, after = (
            "x".join(map(str, shape[1:])) for shape in (call.input_shapes[0], call.output_shape)
        )
        return f"changes the shape from {before} to {after}"
    return ""


def _failure_without(model: nn.Module, inputs: ModelInputs, names: Sequence[str]) -> str:
    """Run a copy without some blocks; return what goes wrong, or ""."""
    cut = copy.deepcopy(model)
    drop_blocks(cut, names)
    with torch.no_grad():
        expected = [tensor.shape for tensor in output_tensors(inputs.run(model))]
        try:
            got = [tensor.shape for tensor in output_tensors(inputs.run(cut))]
        except Exception as error:
            return f"the model does not run without it ({one_line(error)})"
    return "" if got == expected else "the model's output has another shape without it"
