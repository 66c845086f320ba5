"""Channel groups as torch-pruning finds them: an independent reference for ours."""

import torch
from torch import nn
from torch_pruning import DependencyGraph

from autocompress.graph.slicing import SLICEABLE
from autocompress.graph.structure import ChannelGroup, GroupMember


def reference_groups(model: nn.Module, x: torch.Tensor) -> dict[str, ChannelGroup]:
    """List the groups of the output channels of every convolution and linear layer.

    A group is listed once, by its first layer; that of the output is left out.
    Nothing is checked: index maps may be wrong.
    """
    graph = DependencyGraph().build_dependency(model, example_inputs=x, verbose=False)
    names = {module: name for name, module in model.named_modules()}
    groups: dict[str, ChannelGroup] = {}
    covered: set[str] = set()
    for module, name in names.items():
        depthwise = getattr(module, "groups", 1) > 1
        if name in covered or depthwise or not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        prune = graph.get_pruner_of_module(module).prune_out_channels
        channels = module.weight.shape[0]
        indices: dict[tuple[str, str], list[set[int]]] = {}
        for item in graph.get_pruning_group(module, prune, list(range(channels))):
            target = item.dep.target.module
            if isinstance(target, SLICEABLE):
                out = graph.is_out_channel_pruning_fn(item.dep.handler)
                places = indices.setdefault(
                    (names[target], "out" if out else "in"), [set() for _ in range(channels)]
                )
                for position, channel in zip(item.idxs, item.root_idxs, strict=True):
                    places[channel].add(position)
        covered |= {member for member, axis in indices if axis == "out"}
        groups[name] = ChannelGroup(
            name=name,
            channels=channels,
            members=tuple(
                GroupMember(module=m, axis=axis, indices=tuple(tuple(sorted(s)) for s in places))
                for (m, axis), places in indices.items()
            ),
            prunable=any(axis == "in" for _, axis in indices),
            reason="",
        )
    return groups
