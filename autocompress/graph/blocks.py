"""Residual blocks that the identity can replace, and branches that zero can."""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from autocompress.core.candidate import is_inside
from autocompress.graph.attention import keep_dense
from autocompress.graph.inputs import ModelInputs, one_line, training_failure
from autocompress.graph.recording import Branch, ModuleCall, Recording
from autocompress.graph.structure import Block, Layer

SUMS_OF_A_LAYER = 3
"""Most residual sums in the forward pass of one layer, as of a decoder; more are a stack."""


def find_blocks(
    model: nn.Module, inputs: ModelInputs, recording: Recording, layers: Sequence[Layer]
) -> tuple[Block, ...]:
    """Find the residual blocks, and say of each whether it can be dropped.

    A residual block is the innermost module that can be dropped and in which
    its own first input is added to what its layers made of it, such as a whole
    encoder layer. Where the sum lies in the forward pass of a module that
    cannot be dropped, or that runs a whole stack of branches, the branch alone
    is the block. Modules that join branches and change the shape are listed
    too, as blocks that cannot be dropped.

    Args:
        model: A private copy in evaluation mode; left as it is.
        inputs: What it is called with.
        recording: An observed run of it.
        layers: The layers that ran.

    Returns:
        The blocks in order of execution; none lies inside another.
    """
    whole = _whole_blocks(model, inputs, recording)
    branches = _branches(model, inputs, recording, whole)
    single = [name for name, reason in branches.items() if not reason]
    listed = {n: r for n, r in whole.items() if not any(is_inside(name, n) for name in single)}
    branches = {n: r for n, r in branches.items() if not r or not _inside_any(n, listed)}
    order = {call.name: number for number, call in reversed([*enumerate(recording.calls)])}
    return tuple(
        Block(
            name=name,
            layers=tuple(layer.name for layer in layers if is_inside(layer.name, name)),
            droppable=not reason,
            reason=reason,
            is_branch=name in branches,
        )
        for name, reason in sorted((listed | branches).items(), key=lambda item: order[item[0]])
    )


def _whole_blocks(model: nn.Module, inputs: ModelInputs, recording: Recording) -> dict[str, str]:
    """Find the modules that contain their sum; return why the identity does not fit, or ""."""
    found: dict[str, str] = {}
    for call in recording.calls:
        if call.name and call.name not in found and (call.adds_input or _reshapes(call)):
            found[call.name] = _structural_reason(call, recording)
    innermost = {name: reason for name, reason in found.items() if _is_listed(name, found)}
    sound = [name for name, reason in innermost.items() if not reason]
    if sound and _failure_without(model, inputs, sound):
        innermost |= {name: _failure_without(model, inputs, [name]) for name in sound}
    return innermost


def _branches(
    model: nn.Module, inputs: ModelInputs, recording: Recording, whole: Mapping[str, str]
) -> dict[str, str]:
    """Find the branches outside of droppable blocks; return why zero does not fit, or ""."""
    sums = Counter(branch.scope for branch in recording.branches)
    kept = [n for n, reason in whole.items() if not reason and sums[n] <= SUMS_OF_A_LAYER]
    found: dict[str, str] = {}
    for branch in recording.branches:
        call = branch.calls[-1]
        if not _inside_any(call.name, kept) and not any(is_inside(n, call.name) for n in kept):
            found.setdefault(call.name, _branch_reason(branch, recording))
    innermost = {name: reason for name, reason in found.items() if _is_listed(name, found)}
    sound = [name for name, reason in innermost.items() if not reason]
    if sound and _failure_with_zeros(model, inputs, sound):
        innermost |= {name: _failure_with_zeros(model, inputs, [name]) for name in sound}
    return innermost


def drop_blocks(model: nn.Module, names: Sequence[str], branches: Collection[str] = ()) -> None:
    """Replace modules by the identity, or by zero, in place.

    Args:
        model: The model to change.
        names: Fully qualified names of droppable blocks.
        branches: Names of blocks that zero replaces.
    """
    for name in names:
        parent, _, child = name.rpartition(".")
        stand_in = replacement(model.get_submodule(name), is_branch=name in branches)
        setattr(model.get_submodule(parent), child, stand_in)
    keep_dense(model)


def replacement(module: nn.Module, *, is_branch: bool) -> nn.Module:
    """Return what stands for a dropped block: zero for a branch, else the identity."""
    if not is_branch:
        return Passthrough(module).train(module.training)
    tensor = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    return Zero().to(tensor.device).train(module.training)


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


class Zero(nn.Module):
    """A branch that adds nothing: zero, whatever the arguments are.

    In training it has one axis, which stochastic depth draws along, and the
    type that autocast would give it, so that sums keep theirs. It is computed
    by no operation, since operations are numbered.
    """

    zero: Tensor
    axis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        self.register_buffer("axis", torch.zeros(1), persistent=False)
        for dtype in (torch.bfloat16, torch.float16):
            zero = torch.zeros(1, dtype=dtype)
            self.register_buffer(str(dtype).replace(".", "_"), zero, persistent=False)

    def forward(self, *_: object, **__: object) -> Tensor:
        """Return zero."""
        if not self.training:
            return self.zero
        device = self.zero.device.type
        if torch.is_autocast_enabled(device):
            narrow = str(torch.get_autocast_dtype(device)).replace(".", "_")
            return getattr(self, narrow, self.axis)
        return self.axis


def _inside_any(name: str, modules: Iterable[str]) -> bool:
    return any(is_inside(name, module) for module in modules)


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


def _branch_reason(branch: Branch, recording: Recording) -> str:
    """Say why zero cannot stand in for a branch; "" if it can."""
    call, names = branch.calls[-1], [call.name for call in branch.calls]
    if len(names) > 1:
        return f"its branch is several modules ({', '.join(names)})"
    if recording.runs(call.name) > 1:
        return "runs more than once"
    if not call.leading:
        return "takes its first input by name"
    return "returns other than one tensor" if call.output_shape is None else ""


def _failure_without(model: nn.Module, inputs: ModelInputs, names: Sequence[str]) -> str:
    """Run a copy without some blocks; return what goes wrong, or ""."""
    cut = copy.deepcopy(model)
    drop_blocks(cut, names)
    expected = [tensor.shape for tensor in inputs.run_alike(model)]
    try:
        got = [tensor.shape for tensor in inputs.run_alike(cut)]
    except Exception as error:
        return f"the model does not run without it ({one_line(error)})"
    return "" if got == expected else "the model's output has another shape without it"


def _failure_with_zeros(model: nn.Module, inputs: ModelInputs, names: Sequence[str]) -> str:
    """Compare a copy without some branches to one that masks them; return what is wrong, or ""."""
    masked, cut = copy.deepcopy(model), copy.deepcopy(model)
    for name in names:
        masked.get_submodule(name).register_forward_hook(lambda *seen: torch.zeros_like(seen[2]))
    drop_blocks(cut, names, names)
    expected = inputs.run_alike(masked)
    try:
        got = inputs.run_alike(cut)
    except Exception as error:
        return f"the model does not run without it ({one_line(error)})"
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in expected]:
        return "the model's output has another shape without it"
    if not all(torch.allclose(g, e, equal_nan=True) for g, e in zip(got, expected, strict=True)):
        return "the model differs from one in which it is zero"
    failure = training_failure(cut, inputs)
    if failure and not training_failure(masked, inputs):
        return f"the model cannot be trained without it ({failure})"
    return ""
