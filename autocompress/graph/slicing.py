"""Remove channels from modules, in place."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from autocompress.errors import InvalidInputError, WrongTypeError, explain
from autocompress.graph.attention import NarrowAttention, keep_dense
from autocompress.graph.structure import ChannelGroup

SLICEABLE = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.LayerNorm),
    *(nn.GroupNorm, nn.PReLU, nn.MultiheadAttention),
)
"""Modules with an "out" axis that can be cut."""

_COUNTS = {
    "out": (*("out_channels", "out_features", "num_features", "num_channels", "num_parameters"),),
    "in": ("in_channels", "in_features", "num_features", "num_channels"),
}


_OWN = ("weight", "bias", "running_mean", "running_var")
"""What layers and normalisations cut themselves; other tensors are cut by name."""


def parameter_place(
    module: nn.Module, key: str, dim: int
) -> tuple[str, Mapping[int, Sequence[int]] | None]:
    """Name the axis of a module to which an axis of its parameter belongs.

    Args:
        module: The module that owns the parameter.
        key: Name of the parameter or buffer.
        dim: Which axis of it.

    Returns:
        "out", "in" or "key:dim"; and which positions of that axis go with
        each position of the parameter's, None if they are the same.

    Example:
        >>> parameter_place(nn.Linear(3, 2), "weight", 1)
        ('in', None)
        >>> parameter_place(nn.Conv2d(4, 4, 1, groups=2), "weight", 1)
        ('in', {0: (0, 2), 1: (1, 3)})
    """
    if not isinstance(module, nn.MultiheadAttention) and key not in _OWN:
        return f"{key}:{dim}", None
    if isinstance(module, nn.modules.conv._ConvNd):
        if dim == _input_dim(module) and key == "weight":
            each = module.in_channels // module.groups
            if each == module.in_channels:
                return "in", None
            return "in", {p: tuple(range(p, module.in_channels, each)) for p in range(each)}
        return "out", None
    if isinstance(module, nn.Linear):
        return ("in" if dim == 1 else "out"), None
    if isinstance(module, nn.MultiheadAttention):
        own = dim == 0 and key in ("in_proj_weight", "in_proj_bias")
        return ("out" if own else f"{key}:{dim}"), None
    if isinstance(module, SLICEABLE) and not (isinstance(module, nn.LayerNorm) and dim):
        return "out", None
    return f"{key}:{dim}", None


def axis_size(module: nn.Module, axis: str) -> int:
    """Return how many positions a module has along an axis.

    Args:
        module: A module that a group names.
        axis: "out", "in", "name:dim" of a parameter, ".name" of a counting
            attribute, or ".name.number" of a tuple of counts.

    Raises:
        WrongTypeError: If the module has no such axis.
    """
    key, _, dim = axis.partition(":")
    if axis.startswith("."):
        size = _count(module, axis)
    elif dim:
        tensor = getattr(module, key, None)
        size = tensor.shape[int(dim)] if isinstance(tensor, Tensor) else None
    elif isinstance(module, nn.MultiheadAttention):
        size = len(module.in_proj_weight) if axis == "out" else None
    elif isinstance(module, nn.LayerNorm):
        size = module.normalized_shape[0]
    elif isinstance(module, SLICEABLE):
        size = next((getattr(module, n) for n in _COUNTS[axis] if hasattr(module, n)), None)
    else:
        size = None
    if not isinstance(size, int):
        raise WrongTypeError(
            explain(
                f"module {type(module).__name__}",
                expected=f"a layer or normalisation with an axis '{axis}'",
                got="something else",
                remedy="leave its group whole",
            )
        )
    return size


def remove_channels(module: nn.Module, axis: str, positions: Sequence[int]) -> None:
    """Remove channels along one axis of one module, in place.

    Weights, biases and running statistics are cut, and the module's own
    counts (`out_channels`, `num_features`, ...) follow. A normalisation and a
    depthwise convolution lose input and output together, and so does a
    grouped convolution that loses whole groups.

    Args:
        module: A convolution, linear layer, normalisation or PReLU; any
            module, if the axis is an attribute or an axis of a parameter.
        axis: "out" for what it produces or carries, "in" for what it
            consumes; ".name" for an attribute that counts channels, "name:dim"
            for an axis of one of its own parameters.
        positions: Positions along the axis, any order, without repetition.

    Raises:
        WrongTypeError: If the module's channels cannot be removed.
        InvalidInputError: If a position does not exist or none would be left.

    Example:
        >>> layer = nn.Linear(4, 3)
        >>> remove_channels(layer, "out", [0, 2])
        >>> layer.weight.shape
        torch.Size([1, 4])
    """
    size = axis_size(module, axis)
    if not positions or (isinstance(module, nn.PReLU) and size == 1):  # one slope for all
        return
    gone = set(positions)
    if len(gone) >= size or min(gone) < 0 or max(gone) >= size:
        raise InvalidInputError(
            explain(
                f"positions to remove from {type(module).__name__}",
                expected=f"fewer than {size}, each in 0 to {size - 1}",
                got=f"{len(gone)} in {min(gone)} to {max(gone)}",
                remedy="keep at least one channel",
            )
        )
    kept = torch.tensor([position for position in range(size) if position not in gone])
    key, _, dim = axis.partition(":")
    if axis.startswith("."):
        _set_count(module, axis, len(kept))
    elif dim:
        _keep(module, key, int(dim), kept)
        if isinstance(module, nn.Embedding):
            module.embedding_dim = len(kept)
    elif isinstance(module, nn.modules.conv._ConvNd):
        _cut_convolution(module, axis, gone, kept)
    elif isinstance(module, nn.MultiheadAttention):
        NarrowAttention.narrow(module, len(kept))
        _keep(module, "in_proj_weight", 0, kept)
        _keep(module, "in_proj_bias", 0, kept)
    elif axis == "in":
        _keep(module, "weight", 1, kept)
        module.in_features = len(kept)  # type: ignore[assignment]
    else:
        _cut_outputs(module, size, kept)


def _count(module: nn.Module, axis: str) -> object:
    """Read an attribute that counts channels, or one element of a tuple of them."""
    _, name, *place = axis.split(".")
    value = getattr(module, name, None)
    return value[int(place[0])] if place and isinstance(value, (tuple, list)) else value


def _set_count(module: nn.Module, axis: str, count: int) -> None:
    """Replace what `_count` reads."""
    _, name, *place = axis.split(".")
    if not place:
        setattr(module, name, count)
        return
    values = getattr(module, name)
    changed = [count if at == int(place[0]) else value for at, value in enumerate(values)]
    setattr(module, name, type(values)(changed))


def _cut_outputs(module: nn.Module, size: int, kept: Tensor) -> None:
    """Cut a linear layer, a normalisation or a PReLU."""
    for key in ("weight", "bias", "running_mean", "running_var"):
        _keep(module, key, 0, kept)
    if isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * len(kept) // size
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(kept), *module.normalized_shape[1:])
    for name in _COUNTS["out"]:
        if hasattr(module, name):
            setattr(module, name, len(kept))


def _cut_convolution(
    module: nn.modules.conv._ConvNd, axis: str, gone: set[int], kept: Tensor
) -> None:
    """Cut a convolution; removing whole groups of a grouped one narrows both sides."""
    if axis == "in":
        each = module.in_channels // module.groups
        _keep(module, "weight", _input_dim(module), kept[kept < each])
        module.in_channels = len(kept)
        return
    each, dim = module.out_channels // module.groups, 1 - _input_dim(module)
    if module.groups > 1 and any(
        gone.issuperset(range(first, first + each)) for first in range(0, module.out_channels, each)
    ):
        ins = module.in_channels // module.groups
        module.groups = len(kept) // each
        module.in_channels = ins * module.groups
    _keep(module, "weight", dim, kept)
    _keep(module, "bias", 0, kept)
    module.out_channels = len(kept)


def _input_dim(module: nn.modules.conv._ConvNd) -> int:
    """Which axis of a convolution's weight consumes channels."""
    return 0 if module.transposed and module.groups == 1 else 1


def _keep(module: nn.Module, key: str, dim: int, kept: Tensor) -> None:
    """Keep some positions along one axis of a parameter or buffer, if there is one.

    What was channels-last stays so: `index_select` alone would undo it.
    """
    tensor = getattr(module, key, None)
    if not isinstance(tensor, Tensor):
        return
    taken = tensor.detach().index_select(dim, kept.to(tensor.device))
    if not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        taken = taken.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        taken = nn.Parameter(taken, requires_grad=tensor.requires_grad)
    setattr(module, key, taken)


def removed_positions(
    removals: Iterable[tuple[ChannelGroup, Sequence[int]]],
) -> dict[tuple[str, str], tuple[int, ...]]:
    """Collect what several groups remove from each axis of each module.

    Args:
        removals: Groups, each with the channels of the group that go.

    Returns:
        Positions on the original module by (module, axis), ascending.
    """
    positions: dict[tuple[str, str], set[int]] = {}
    for group, channels in removals:
        for member in group.members:
            taken = positions.setdefault((member.module, member.axis), set())
            for channel in channels:
                taken.update(member.indices[channel])
    return {key: tuple(sorted(taken)) for key, taken in positions.items()}


def remove_positions(model: nn.Module, positions: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Cut every named axis once, in place; modules that are gone are skipped.

    Args:
        model: The model, blocks perhaps already dropped.
        positions: As `removed_positions` returns them.
    """
    modules = dict(model.named_modules())
    for (name, axis), taken in positions.items():
        if name in modules:
            remove_channels(modules[name], axis, taken)
    keep_dense(model)


def prune_groups(model: nn.Module, removals: Iterable[tuple[ChannelGroup, Sequence[int]]]) -> None:
    """Remove channels of groups from a model, in place.

    Args:
        model: The model; blocks may already be dropped from it.
        removals: Groups, each with the channels of the group that go.
    """
    remove_positions(model, removed_positions(removals))
