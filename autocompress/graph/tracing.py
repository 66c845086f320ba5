"""Trace a model: everything that compression needs to know about its structure."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn

from autocompress.errors import TraceError, explain
from autocompress.graph.block_check import check_blocks
from autocompress.graph.blocks import find_blocks
from autocompress.graph.coupling import channel_groups
from autocompress.graph.inputs import EXAMPLES, ModelInputs, plain_copy
from autocompress.graph.mask_check import check_groups
from autocompress.graph.operations import OperationTrace, record_operations
from autocompress.graph.recording import LAYER_TYPES, ModuleCall, Recording, call_macs, record
from autocompress.graph.structure import Layer, ModelGraph

UNSTEADY = "the model runs other operations for another number of examples"


def trace(model: nn.Module, example_inputs: object) -> ModelGraph:
    """Find layers, operations, channel groups and residual blocks of a model.

    The model is copied first: its state, its mode and the random state of the
    process stay as they are. Every group is checked numerically, and so is
    every block; what fails is listed with the reason.

    Args:
        model: Any module.
        example_inputs: A tensor, a tuple of positional arguments, or a
            dictionary of keyword arguments; batch axis first. Two examples
            are enough, further ones are ignored if the model runs without.

    Returns:
        The structure of the model.

    Raises:
        WrongTypeError: If `model` is not a module, or the inputs are not tensors.
        InvalidInputError: If the inputs hold no example.
        TraceError: If the model does not run on them, runs no layer, or
            returns no tensor.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> graph = trace(model, torch.zeros(2, 4))
        >>> [(layer.name, layer.macs) for layer in graph.layers]
        [('0', 32), ('2', 16)]
        >>> [(group.name, group.prunable, group.reason) for group in graph.groups]
        [('0', True, ''), ('2', False, 'output layer')]
    """
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        copied = plain_copy(model)
        inputs, recording = _recorded(copied, ModelInputs.of(example_inputs))
        shared = _shared_modules(copied, recording)
        layers = _layers(recording, shared)
        if not layers:
            raise TraceError(
                explain(
                    f"model {type(model).__name__}",
                    expected="at least one convolution or linear layer in its forward pass",
                    got="none",
                    remedy="build it from torch.nn layers",
                )
            )
        blocks = find_blocks(copied, inputs, recording, layers)
        groups = channel_groups(copied, inputs, layers, shared)
        groups = check_groups(copied, inputs, groups)
        blocks = check_blocks(copied, inputs, groups, blocks)
        droppable = [block.name for block in blocks if block.droppable]
        flow = record_operations(copied, (inputs.args, inputs.kwargs), droppable)
        if not _is_steady(copied, inputs, flow):
            layers = tuple(_unquantised(layer) for layer in layers)
    return ModelGraph(
        layers=layers,
        operations=tuple(recording.operations),
        groups=groups,
        blocks=blocks,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        fingerprint=fingerprint(model),
        flow=flow,
    )


def fingerprint(model: nn.Module) -> str:
    """Digest the architecture of a model, not its values.

    Args:
        model: Any module.

    Returns:
        SHA-256 over the names and classes of its modules and the names,
        types and shapes of its parameters and buffers, in hexadecimal.

    Example:
        >>> fingerprint(nn.Linear(3, 2)) == fingerprint(nn.Linear(3, 2))
        True
        >>> fingerprint(nn.Linear(3, 2)) == fingerprint(nn.Linear(2, 3))
        False
    """
    lines = [f"{name}: {type(module).__name__}" for name, module in model.named_modules()]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        lines.append(f"{name}: {tensor.dtype} {tuple(tensor.shape)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _recorded(model: nn.Module, given: ModelInputs) -> tuple[ModelInputs, Recording]:
    """Run a model on the first examples, or on all of them if it does not run on fewer."""
    few = given.plain()
    try:
        return few, record(model, few)
    except TraceError:  # an axis that is as long as the batch may have another meaning
        whole = given.plain(given.batch_size)
        if given.batch_size <= EXAMPLES or not _runs(model, whole):
            raise
    return whole, record(model, whole)


def _runs(model: nn.Module, inputs: ModelInputs) -> bool:
    try:
        inputs.run_alike(model)
    except Exception:  # whatever its forward raises
        return False
    return True


def _is_steady(model: nn.Module, inputs: ModelInputs, flow: OperationTrace) -> bool:
    """Tell whether a model runs the same operations on another number of examples.

    What cannot be called with that number counts as steady.
    """
    other = inputs.first(1) if inputs.batch_size > 1 else inputs.repeated(2)
    if not _runs(model, other):
        return True
    found = record_operations(model, (other.args, other.kwargs))
    kinds, others = (
        [(operation.kind, operation.outputs) for operation in trace.operations]
        for trace in (flow, found)
    )
    return kinds == others


def _unquantised(layer: Layer) -> Layer:
    return replace(layer, quantisable=False, reason=layer.reason or UNSTEADY)


def _shared_modules(model: nn.Module, recording: Recording) -> set[str]:
    """Name the modules that run more than once or share a parameter with another."""
    runs = Counter(call.name for call in recording.calls)
    owned = {
        name: [id(parameter) for parameter in module.parameters(recurse=False)]
        for name, module in model.named_modules()
    }
    owners = Counter(identity for identities in owned.values() for identity in identities)
    return {
        name
        for name, identities in owned.items()
        if runs[name] > 1 or any(owners[identity] > 1 for identity in identities)
    }


def _layers(recording: Recording, shared: Collection[str]) -> tuple[Layer, ...]:
    """Describe each layer by its first execution; MACs are summed over all of them."""
    layers: dict[str, Layer] = {}
    weights: dict[int, str] = {}
    for call in recording.calls:
        found: tuple[Layer, ...] = ()
        if isinstance(call.module, (*LAYER_TYPES, nn.Embedding)):
            computed = call.name in recording.computed
            layer = _layer(call, recording.batch_size, call.name in shared, computed)
            holder = weights.setdefault(id(call.module._parameters.get("weight", call)), call.name)
            found = (replace(layer, tied="" if holder == call.name else holder),)
        elif isinstance(call.module, nn.MultiheadAttention) and call.module._qkv_same_embed_dim:
            found = _attention_layers(call, call.module, recording.batch_size)
        for layer in found:
            known = layers.get(layer.name)
            if known is not None:
                macs, first = known.macs + layer.macs, known.macs / known.runs
                layer = replace(known, macs=macs, runs=macs / first if first else 1.0)
            layers[layer.name] = layer
    return tuple(layers.values())


def _attention_layers(
    call: ModuleCall, module: nn.MultiheadAttention, batch_size: int
) -> tuple[Layer, ...]:
    """Describe the packed and the output projection of attention, which no module runs."""
    tokens = [math.prod(shape[:-1]) // batch_size for shape in call.input_shapes[:3]]
    width = module.embed_dim
    weights = {call.name: module.in_proj_weight, f"{call.name}.out_proj": module.out_proj.weight}
    return tuple(
        Layer(
            name=name,
            type=kind,
            input_shape=(tokens[0], width),
            output_shape=(tokens[0], weight.shape[0]),
            weight_shape=tuple(weight.shape),
            kernel_size=(),
            stride=(),
            groups=1,
            macs=read * width * width,
            parameters=weight.numel() + (0 if module.in_proj_bias is None else len(weight)),
            quantisable=False,
            reason="stays in floating point: nn.MultiheadAttention uses its weights directly",
        )
        for (name, weight), kind, read in zip(
            weights.items(),
            (type(module).__name__, "Linear"),
            (sum(tokens), tokens[0]),
            strict=True,
        )
    )


def _layer(call: ModuleCall, batch_size: int, shared: bool, computed: bool) -> Layer:
    module = call.module
    weight = module.get_parameter("weight") if "weight" in module._parameters else None
    spatial = not isinstance(module, (nn.Linear, nn.Embedding))
    if shared:
        reason = "shared weights"
    elif weight is None or getattr(module, "max_norm", None) is not None or computed:
        reason = "computed weights"
    else:
        reason = ""
    shape: torch.Size = module.weight.shape  # type: ignore[assignment]
    return Layer(
        name=call.name,
        type=type(module).__name__,
        input_shape=call.input_shapes[0][1:],
        output_shape=(call.output_shape or ())[1:],
        weight_shape=tuple(shape),
        kernel_size=tuple(module.kernel_size) if spatial else (),  # type: ignore[arg-type]
        stride=tuple(module.stride) if spatial else (),  # type: ignore[arg-type]
        groups=module.groups if spatial else 1,  # type: ignore[arg-type]
        macs=call_macs(call, batch_size) if isinstance(module, LAYER_TYPES) else 0,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        quantisable=not reason,
        reason=reason,
    )
