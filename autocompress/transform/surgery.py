"""Cut a copy of a model: drop blocks and remove channels."""

import copy
from collections import Counter
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from autocompress.core.candidate import Candidate
from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.attention import keep_dense
from autocompress.graph.blocks import replacement
from autocompress.graph.slicing import axis_size, remove_channels
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import removed_channels
from autocompress.transform.criteria import find_criterion
from autocompress.transform.memory_format import keep_sound
from autocompress.transform.ranks import Ranks, remaining
from autocompress.transform.record import Cut


def plan_cuts(
    model: nn.Module,
    graph: ModelGraph,
    candidate: Candidate,
    ranks: Ranks | None = None,
    final: Candidate | None = None,
) -> tuple[Cut, ...]:
    """Choose the channels that a candidate removes.

    Args:
        model: The original model.
        graph: Its structure.
        candidate: The candidate, canonical.
        ranks: Orders the channels of the model; None ranks them by its
            weights alone.
        final: What the candidate is a stage on the way to, so that later
            stages remove the same channels and more; None for itself.

    Returns:
        The cuts, one per module and axis, dropped blocks left out.

    Raises:
        InvalidInputError: If a group or block is unknown or cannot be cut, or
            the criterion needs data that `ranks` does not have.
    """
    find_criterion(candidate.criterion)
    ranks = Ranks(model, graph) if ranks is None else ranks
    for name in candidate.dropped_blocks:
        block = graph.block(name)
        if not block.droppable:
            raise InvalidInputError(
                explain(
                    f"block '{name}'",
                    expected="a droppable block",
                    got=block.reason,
                    remedy="leave it out of dropped_blocks",
                )
            )
    removed: dict[tuple[str, str], set[int]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for name, ratio in candidate.pruning_ratios.items():
        group = graph.group(name)
        if not group.prunable:
            raise InvalidInputError(
                explain(
                    f"channel group '{name}'",
                    expected="a prunable group",
                    got=group.reason,
                    remedy="leave it out of pruning_ratios",
                )
            )
        count = removed_channels(group, ratio)
        if count == 0:
            continue
        order = ranks.order(candidate.criterion, remaining(group, final or candidate))
        doomed = order[:count]
        for member in remaining(group, candidate).members:
            key = (member.module, member.axis)
            positions = removed.setdefault(key, set())
            positions.update(p for channel in doomed for p in member.indices[channel])
            sizes[key] = axis_size(ranks.modules[member.module], member.axis)
    return tuple(
        Cut(module=module, axis=axis, size=sizes[module, axis], removed=tuple(sorted(positions)))
        for (module, axis), positions in removed.items()
    )


def cut_model(
    model: nn.Module,
    dropped: Sequence[str],
    cuts: Sequence[Cut],
    branches: Collection[str] = (),
) -> nn.Module:
    """Copy a model, replace blocks by the identity or by zero and remove channels.

    What is not kept is not copied either: dropped blocks, and the tensors of
    modules that are cut, of which slices are taken from the original.

    Args:
        model: The original; untouched.
        dropped: Names of the blocks to replace.
        cuts: What to remove.
        branches: Names of the blocks that zero replaces.

    Returns:
        The cut copy, in the original's mode and on its device.

    Raises:
        InvalidInputError: If a cut does not fit this model.
    """
    originals = dict(model.named_modules())
    known: dict[int, object] = {}  # what copies stand for, by the identity of the original
    for name in dropped:
        if name not in originals:
            raise InvalidInputError(unknown_name("block", name, originals))
        block = originals[name]
        known[id(block)] = replacement(block, is_branch=name in branches)
    owners = Counter(id(tensor) for module in originals.values() for tensor in _tensors(module))
    borrowed = {
        id(tensor): tensor
        for cut in cuts
        for tensor in _tensors(originals.get(cut.module, nn.Identity()))
        if owners[id(tensor)] == 1
    }
    network = copy.deepcopy(model, {**known, **borrowed})
    modules = dict(network.named_modules())
    for cut in cuts:
        module = modules.get(cut.module)
        if module is None or axis_size(module, cut.axis) != cut.size:
            raise InvalidInputError(
                explain(
                    f"surgery of '{cut.module}'",
                    expected=f"a module whose '{cut.axis}' axis has {cut.size} channels",
                    got="none" if module is None else axis_size(module, cut.axis),
                    remedy="give the architecture that the record was made from",
                )
            )
        remove_channels(module, cut.axis, cut.removed)
    for name in {cut.module for cut in cuts}:
        _return_borrowed(modules[name], borrowed)
    keep_dense(network)
    return keep_sound(network)


def _tensors(module: nn.Module) -> list[Tensor]:
    """List the parameters and buffers of a module itself."""
    own = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in own if tensor is not None]


def _return_borrowed(module: nn.Module, borrowed: dict[int, Tensor]) -> None:
    """Copy what a cut module still shares with the original, in place."""
    parameters, buffers = module._parameters, module._buffers
    parameters.update({k: copy.deepcopy(p) for k, p in parameters.items() if id(p) in borrowed})
    buffers.update({k: copy.deepcopy(b) for k, b in buffers.items() if id(b) in borrowed})
