"""Which runtime kernels a candidate runs, without building its model."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise, product
from typing import TypeVar

import numpy as np

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import FLOAT, Target
from autocompress.cost.executed_graph import flow_of
from autocompress.cost.kernel_key import INT8, KernelKey
from autocompress.cost.weightless import Weightless, weightless_kernels
from autocompress.graph.structure import Block, Layer, ModelGraph, Operation, loses_whole_groups
from autocompress.graph.widths import LayerWidths, pruned_widths

CONVERSIONS = 5
"""Sizes of tensors whose conversion is measured."""

T = TypeVar("T")


def executed_kernels(
    graph: ModelGraph, candidate: Candidate, target: Target
) -> dict[KernelKey, int]:
    """Count the kernels that one inference of a candidate runs.

    Args:
        graph: The structure of the original model.
        candidate: The joint configuration.
        target: Decides which precision a layer is really computed in.

    Returns:
        How often each kernel runs.
    """
    plan = KernelPlan(graph, target)
    counts: Counter[KernelKey] = Counter()
    for site in plan.sites(candidate):
        counts[plan.kernel(site)] += max(1, round(plan.runs(site)))
    return dict(counts)


def precision_class(candidate: Candidate, target: Target) -> str:
    """Name the class of a candidate: "int8" if any layer is computed in integers, else "float"."""
    any_integer = any(
        _executed_bits(target, config) == INT8
        for name, config in candidate.layers.items()
        if not candidate.drops(name)
    )
    return "int8" if any_integer else "float"


Place = Layer | Operation | Weightless
"""What takes time: a layer, a residual addition, or a pool or an attention."""

Site = tuple[int, tuple[float, ...], int]
"""Place in the network, pruning ratios of the groups that decide its widths, bits."""


class KernelPlan:
    """The kernels of one graph on one target, remembered by what decides them.

    The widths of a layer depend on the few groups that it belongs to and on
    nothing else of a candidate, so that thousands of candidates share a few
    hundred kernels. A transposed convolution stands for the convolution with
    as many multiply-accumulates.
    """

    def __init__(self, graph: ModelGraph, target: Target) -> None:
        self.graph = graph
        self.target = target
        adds = [operation for operation in graph.operations if operation.kind == "add"]
        layers = [layer for layer in graph.layers if layer.macs]  # looking up takes no time
        flow = flow_of(graph)
        apart = [] if flow is None else weightless_kernels(flow)
        self._places: list[Place] = [*layers, *adds, *apart]
        self.layer_count, self._add_count = len(layers), len(adds)
        self._carriers = [self._carrier(place) for place in self._places]
        axes: dict[str, dict[str, tuple[str, ...]]] = {}  # layer name to axes by group
        for group in graph.groups:
            for member in group.members if group.prunable else ():
                by_group = axes.setdefault(member.module, {})
                by_group[group.name] = (*by_group.get(group.name, ()), member.axis)
        self._axes = [axes.get(carrier.name, {}) if carrier else {} for carrier in self._carriers]
        for index in range(len(self._axes) - len(apart), len(self._axes)):
            made = {name: where for name, where in self._axes[index].items() if "out" in where}
            self._axes[index] = made  # inputs of what is before do not matter
        self._groups = [tuple(by_group) for by_group in self._axes]
        self._blocks = [
            frozenset(block.name for block in graph.blocks if _goes_with(place, block))
            for place in self._places
        ]
        self._bits: dict[LayerConfig, int] = {}
        self._kernels: dict[Site, KernelKey] = {}
        self._widths: dict[
            tuple[tuple[str, ...], tuple[float, ...]], Mapping[str, LayerWidths]
        ] = {}

    @property
    def layers(self) -> list[tuple[Layer, tuple[str, ...]]]:
        """The layers that take time, with the groups that decide their widths."""
        found = zip(self._places[: self.layer_count], self._groups, strict=False)
        return [(place, groups) for place, groups in found if isinstance(place, Layer)]

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The groups that decide the widths of each place."""
        return self._groups

    @property
    def additions(self) -> list[tuple[int, tuple[str, ...]]]:
        """The residual additions: the number of their place, and the groups that decide it."""
        return list(enumerate(self._groups))[self.layer_count :][: self._add_count]

    @property
    def weightless(self) -> list[tuple[int, tuple[str, ...]]]:
        """The pools and attentions, likewise, as `weightless_kernels` lists them."""
        return list(enumerate(self._groups))[self.layer_count + self._add_count :]

    def place(self, site: Site) -> Place:
        """Return the layer or what else runs at a site."""
        return self._places[site[0]]

    def runs(self, site: Site) -> float:
        """Return how often a site's kernel runs: that of a shared layer several times."""
        place = self._places[site[0]]
        return place.runs if isinstance(place, Layer) else 1.0

    def sites(self, candidate: Candidate) -> list[Site]:
        """List what a candidate runs, in a form that is quick to make and to look up."""
        ratios, dropped = candidate.pruning_ratios, set(candidate.dropped_blocks)
        sites: list[Site] = []
        any_integer = False
        for index, place in enumerate(self._places):
            if not dropped.isdisjoint(self._blocks[index]):
                continue
            if isinstance(place, Layer):
                bits = self._layer_bits(place, candidate)
                any_integer = any_integer or bits == INT8
            elif isinstance(place, Weightless):
                carrier = self._carriers[index]
                bits = self._layer_bits(carrier, candidate) if carrier else FLOAT
            else:
                bits = INT8 if any_integer else FLOAT
            sites.append((index, tuple([ratios.get(g, 0.0) for g in self._groups[index]]), bits))
        return sites

    def boundaries(self, candidate: Candidate) -> int:
        """Count the layers of a candidate that run in another precision than the one before."""
        layers = [site for site in self.sites(candidate) if site[0] < self.layer_count]
        return sum(before[2] != after[2] for before, after in pairwise(layers))

    def kernel(self, site: Site) -> KernelKey:
        """Return the kernel at a site."""
        if site not in self._kernels:
            self._kernels[site] = self._build(site)
        return self._kernels[site]

    def conversions(self) -> list[KernelKey]:
        """List conversions between precisions, of tensors of a few sizes, if there are two."""
        pairs = self.target.precisions
        if (FLOAT, FLOAT) not in pairs or (INT8, INT8) not in pairs:
            return []
        shapes = {
            layer.input_shape
            for layer, _ in self.layers
            if layer.kernel_size and math.prod(layer.input_shape[1:]) > 1
        }
        ordered = sorted(shapes, key=lambda shape: (math.prod(shape), shape))
        chosen = dict.fromkeys(spaced(ordered, min(CONVERSIONS, len(ordered)))) if ordered else {}
        return [
            KernelKey(
                kind=kind, in_channels=shape[0], out_channels=shape[0], size=shape[1:], bits=bits
            )
            for shape in chosen
            for kind, bits in (("quantise", FLOAT), ("dequantise", INT8))
        ]

    def possible_kernels(
        self, ratios: Mapping[str, Sequence[float]], levels: int, rows: int
    ) -> Iterator[KernelKey]:
        """List kernels that span what candidates can run, repeats included.

        Groups that make up the same axes of a layer, as those of concatenated
        tensors do, are narrowed together; widths between are interpolated.

        Args:
            ratios: Pruning ratios by group; groups left out stay whole.
            levels: Most ratios of each group, evenly spaced, the ends among them.
            rows: Likewise, for the inputs of layers whose outputs vary too.
        """
        pairs = self.target.precisions
        configs = [LayerConfig(weight_bits=w, activation_bits=a) for w, a in pairs]
        precisions = {_executed_bits(self.target, config) for config in configs}
        for index, axes in enumerate(self._axes):
            place = self._places[index]
            carrier = place if isinstance(place, Operation) else self._carriers[index]
            fixed = isinstance(carrier, Layer) and not (
                carrier.quantisable and _has_integers(carrier)
            )
            steps = self._steps(axes, ratios, levels, rows)
            for chosen, bits in product(product(*steps), {FLOAT} if fixed else precisions):
                ratio = dict(chain.from_iterable(chosen))
                yield self.kernel((index, tuple(ratio[group] for group in axes), bits))

    @staticmethod
    def _steps(
        axes: Mapping[str, tuple[str, ...]],
        ratios: Mapping[str, Sequence[float]],
        levels: int,
        rows: int,
    ) -> Iterator[list[tuple[tuple[str, float], ...]]]:
        """For groups that make up the same axes, list the ratios that they take together."""
        together: dict[tuple[str, ...], list[str]] = {}
        for group, named in axes.items():
            together.setdefault(named, []).append(group)
        for named, groups in together.items():
            choices = [sorted({0.0, *ratios.get(group, ())}) for group in groups]
            most = rows if named == ("in",) and len(together) > 1 else levels
            count = min(most, max(map(len, choices)))
            spread = [
                [(group, ratio) for ratio in spaced(values, count)]
                for group, values in zip(groups, choices, strict=True)
            ]
            yield list(zip(*spread, strict=True))

    def _layer_bits(self, layer: Layer, candidate: Candidate) -> int:
        config = candidate.layers.get(layer.name)
        if config is None or not _has_integers(layer):
            return FLOAT
        if config not in self._bits:
            self._bits[config] = _executed_bits(self.target, config)
        return self._bits[config]

    def _build(self, site: Site) -> KernelKey:
        index, ratios, bits = site
        place, carrier = self._places[index], self._carriers[index]
        if isinstance(place, Weightless):
            share = 1.0
            if carrier is not None and ratios:
                left, whole = (
                    self._carrier_widths(carrier, self._groups[index], chosen).out_channels
                    for chosen in (ratios, tuple(0.0 for _ in ratios))
                )
                share = left / whole
            return place.key(share, bits)
        if isinstance(place, Operation):
            known = self._carrier_widths(carrier, self._groups[index], ratios) if carrier else None
            last = carrier is not None and not carrier.kernel_size
            width = known.out_channels if known else place.shape[-1 if last else 0]
            size = place.shape[:-1] if last else place.shape[1:]
            kernel = carrier.kernel_size if carrier else ()
            return KernelKey(
                kind="add",
                in_channels=width,
                out_channels=width,
                kernel=kernel,
                stride=tuple(1 for _ in kernel),
                size=size,
                bits=bits,
            )
        widths = self._carrier_widths(place, self._groups[index], ratios)
        transposed = "Transpose" in place.type
        output = place.input_shape if transposed else place.output_shape
        return KernelKey(
            kind="conv" if place.kernel_size else "linear",
            in_channels=widths.in_channels,
            out_channels=widths.out_channels,
            kernel=place.kernel_size,
            stride=tuple(1 for _ in place.stride) if transposed else place.stride,
            groups=_groups_left(place, widths),
            size=output[1:] if place.kernel_size else output[:-1],
            bits=bits,
        )

    def _carrier_widths(
        self, carrier: Layer, groups: tuple[str, ...], ratios: tuple[float, ...]
    ) -> LayerWidths:
        if (groups, ratios) not in self._widths:
            pruned = {g: ratio for g, ratio in zip(groups, ratios, strict=True) if ratio}
            self._widths[groups, ratios] = pruned_widths(
                self.graph, Candidate(pruning_ratios=pruned)
            )
        return self._widths[groups, ratios][carrier.name]

    def _carrier(self, place: Place) -> Layer | None:
        """Find the layer that decides the widths of a place: itself, or one before.

        Of an addition it is the last one inside the module that adds whose
        output has the same shape; None if there is none, and the place keeps
        its channels.
        """
        if isinstance(place, Layer):
            return place
        if isinstance(place, Weightless):
            return self.graph.layer_by_name.get(place.carrier)
        fitting = [
            layer
            for layer in self.graph.layers
            if _inside(layer.name, place.scope) and layer.output_shape == place.shape
        ]
        return fitting[-1] if fitting else None


def _goes_with(place: Place, block: Block) -> bool:
    """Tell whether a layer or whatever else is not run where a block is dropped."""
    if isinstance(place, Weightless):
        return block.name in place.blocks
    if isinstance(place, Layer):
        return _inside(place.name, block.name)
    return _inside(place.scope, block.name) or (block.is_branch and place.branch == block.name)


def _inside(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


def _executed_bits(target: Target, config: LayerConfig) -> int:
    pair = target.executed(config.weight_bits, config.activation_bits, config.group_size)
    return INT8 if max(pair) <= INT8 else FLOAT


def _has_integers(layer: Layer) -> bool:
    """Tell whether runtimes have an integer kernel for a layer of this type."""
    return "Transpose" not in layer.type


def _groups_left(layer: Layer, widths: LayerWidths) -> int:
    """Convolution groups after pruning: whole groups go where they are many and small."""
    if loses_whole_groups(layer.weight_shape[1], layer.groups):
        return widths.in_channels // max(layer.input_shape[0] // layer.groups, 1)
    return layer.groups


def spaced(values: Sequence[T], count: int) -> list[T]:
    """Take evenly spaced values, the first and the last among them; repeats if there are few."""
    places = np.linspace(0, len(values) - 1, count)
    return [values[round(place)] for place in places]
