"""Channel groups: which axes of which modules shrink together."""

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from autocompress.errors import TraceError, explain
from autocompress.graph.inputs import ModelInputs, one_line, output_tensors, trainable
from autocompress.graph.labels import Marks
from autocompress.graph.math_rules import MATH_RULES
from autocompress.graph.propagation import HEAD_SIZES, Count, Propagation
from autocompress.graph.recording import LAYER_TYPES
from autocompress.graph.shape_rules import SHAPE_RULES
from autocompress.graph.slicing import SLICEABLE, parameter_place
from autocompress.graph.structure import ChannelGroup, GroupMember, Layer

COUNT_NAMES = re.compile("head|width|split|chan|dim|plane|embed|inner|hidden|feature")
"""Attributes with such names may count the channels that a reshape or a split names."""

PADDED = "padded by a fixed number of channels"
COMPUTED = "computed weights"

Place = tuple[str, str]
"""A module and one of its axes, as group members name them."""

Unit = dict[Place, list[int]]
"""The positions that are removed with one channel."""


def channel_groups(
    model: nn.Module, inputs: ModelInputs, layers: Sequence[Layer], shared: Collection[str]
) -> tuple[ChannelGroup, ...]:
    """Find the channels that must be pruned together.

    Every position of every weight axis gets a label. One run on the example
    inputs ties the labels that meet: in sums, in contractions, in a reshape
    that needs whole heads. What is tied forms one channel; channels that
    take equally many positions of the same axes form a group. The coupling is
    that of DepGraph (Fang et al. 2023, arXiv:2301.12900), followed with
    indices through padding, slices, concatenations and reshapes. What cannot
    be cut is refused here with the reason; the rest is for the mask check.

    Args:
        model: A private copy in evaluation mode; left as it is.
        inputs: What it is called with.
        layers: The layers that ran, in order of execution.
        shared: Names of modules that run more than once or share a weight.

    Returns:
        The groups in order of execution. A prunable one with a reason is in
        doubt: the mask check decides whether the reason holds.

    Raises:
        TraceError: If the model does not run.
    """
    model = trainable(copy.deepcopy(model))
    run = _propagated(model, inputs)
    for count in run.counts:
        _follow_count(run, count)
    roots = sorted((layer.name for layer in layers), key=run.entered.__getitem__)
    units, sizes = _units(run, roots, shared)
    computed = {
        name
        for name, m in run.modules.items()
        if isinstance(m, LAYER_TYPES) and "weight" not in m._parameters
    }
    alike: dict[tuple[object, str, str], list[Unit]] = defaultdict(list)
    reasons, doubts = run.labels.reasons(), run.labels.reasons(certain=False)
    for root, unit in units.items():
        shape = tuple((place, len(positions)) for place, positions in unit.items())
        alike[shape, reasons.get(root, ""), doubts.get(root, "")].append(unit)
    groups: dict[str, ChannelGroup] = {}
    named = _names(list(alike.values()), roots, sizes)
    for name, ((_, reason, doubt), members) in zip(named, alike.items(), strict=True):
        if name:
            group = _group(name, members, reason, shared, computed)
            groups[name] = replace(group, reason=group.reason or doubt)
    reported = {m.module for group in groups.values() for m in group.members if m.axis == "out"}
    for layer in layers:
        if layer.name not in reported:
            reason = COMPUTED if layer.name in computed else "couples channels unevenly"
            groups[layer.name] = ChannelGroup(
                name=layer.name,
                channels=layer.weight_shape[0],
                members=(),
                prunable=False,
                reason=reason,
            )
    return tuple(sorted(groups.values(), key=lambda group: run.entered[group.name]))


def _propagated(model: nn.Module, inputs: ModelInputs) -> Propagation:
    """Run a model once and follow its labels."""
    run = Propagation(model, {**SHAPE_RULES, **MATH_RULES})
    try:
        with torch.enable_grad(), run:  # with gradients, no layer takes a fused path
            output = inputs.run(model)
    except Exception as error:
        raise TraceError(
            explain(
                f"channels of {type(model).__name__}",
                expected="operations whose channels can be followed",
                got=one_line(error),
                remedy="move what computes outside of tensors out of the forward pass",
            )
        ) from error
    finally:
        run.close()
    run.mark_outputs(output_tensors(output))
    return run


def _follow_count(run: Propagation, count: Count) -> None:
    """Let an attribute that counts channels shrink with them; padding without one stays."""
    module = run.modules[count.module]
    names = [
        name
        for name, value in vars(module).items()
        if type(value) is int and value == len(count.marks) and name not in HEAD_SIZES
    ]
    named = [name for name in names if COUNT_NAMES.search(name)]
    if isinstance(module, SLICEABLE) or not (
        count.is_padding or run.labels.is_layered(count.marks)
    ):
        return
    lists = [
        f"{name}.{count.number}"
        for name, value in vars(module).items()
        if isinstance(value, (tuple, list)) and value and tuple(value) == count.amounts
    ]
    if count.is_padding:
        named = (lists + [name for name in names if "pad" in name] + named)[:1]
        if not named:
            run.labels.refuse(count.marks, PADDED)
    else:
        named += lists
    for name in named:
        marks = run.attributes.setdefault((count.module, f".{name}"), count.marks)
        run.labels.union(marks, count.marks)


def _units(
    run: Propagation, roots: Sequence[str], shared: Collection[str]
) -> tuple[dict[int, Unit], dict[str, int]]:
    """Collect, for every class that a root layer produces, all places of its channels.

    Returns:
        The places by class, in order of execution; and how many channels each
        root has.
    """
    axes: list[tuple[Place, Mapping[int, Sequence[int]] | None, Marks]] = []
    for parameter in run.parameters:
        module = run.modules[parameter.module]
        axis, spread = parameter_place(module, parameter.key, parameter.dim)
        consumed = bool(len(parameter.marks)) and int(parameter.marks[0]) in run.contracted
        if consumed and ":" in axis and parameter.module not in shared:
            run.labels.refuse(parameter.marks, "weights used outside of a layer")
        axes.append(((parameter.module, axis), spread, parameter.marks))
    axes += [(place, None, marks) for place, marks in run.attributes.items()]
    found = [run.labels.find(marks).tolist() for _, _, marks in axes]
    produced: dict[str, list[int]] = {}
    for (place, _, _), classes in zip(axes, found, strict=True):
        if place[1] == "out":
            produced.setdefault(place[0], classes)
    units: dict[int, Unit] = {c: {} for root in roots for c in produced.get(root, ())}
    for (place, spread, _), classes in zip(axes, found, strict=True):
        for position, label in enumerate(classes):
            if label in units:
                taken = units[label].setdefault(place, [])
                taken.extend(spread[position] if spread else (position,))
    for unit in units.values():
        for place, positions in unit.items():
            unit[place] = sorted(set(positions))
    return units, {root: len(produced[root]) for root in roots if root in produced}


def _names(
    groups: Sequence[Sequence[Unit]], roots: Sequence[str], sizes: Mapping[str, int]
) -> list[str]:
    """Name each group by the first layer that it covers, else by the first that it reaches."""
    names = [""] * len(groups)
    reach = [
        [root for root in roots if (root, "out") in group[0] and root in sizes] for group in groups
    ]
    for number, group in enumerate(groups):
        whole = (
            root
            for root in reach[number]
            if sum(len(unit[root, "out"]) for unit in group) == sizes[root]
        )
        names[number] = next(whole, "")
    taken = set(names)
    for number, name in enumerate(names):
        if not name:
            names[number] = next((root for root in reach[number] if root not in taken), "")
            taken.add(names[number])
    return names


def _group(
    name: str,
    members: Sequence[Unit],
    reason: str,
    shared: Collection[str],
    computed: Collection[str],
) -> ChannelGroup:
    """Describe the channels of a group; `reason` is why they must stay, "" if nothing is known."""
    units = sorted(members, key=lambda unit: unit[name, "out"][0])
    if any(module in computed for module, _ in units[0]):
        reason = COMPUTED
    if not reason and any(module in shared for module, _ in units[0]):
        reason = "shared weights"
    if not reason and len(units) == 1:
        single = len(units[0][name, "out"]) == 1
        reason = "has a single channel" if single else "its channels all depend on each other"
    return ChannelGroup(
        name=name,
        channels=len(units),
        members=tuple(
            GroupMember(
                module=module,
                axis=axis,
                indices=tuple(tuple(unit[module, axis]) for unit in units),
            )
            for module, axis in units[0]
        ),
        prunable=not reason,
        reason=reason,
    )
