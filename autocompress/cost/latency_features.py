"""Where the time of candidates goes: sums of kernels and conversions, for many at once."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import LayerConfig
from autocompress.core.population import Candidates, Population
from autocompress.core.target import FLOAT, Target
from autocompress.cost.executed_graph import ExecutedGraph, Execution, flow_of
from autocompress.cost.kernel_key import INT8, KernelKey
from autocompress.cost.kernels import KernelPlan
from autocompress.cost.latency_table import LatencyTable
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import ModelGraph

Columns = NDArray[np.float64]
Places = NDArray[np.int64]
"""Which of the ratios of a group that were met each candidate has."""

TIMES = (
    *("integer layers", "float layers", "integer additions", "float additions"),
    *("quantise", "dequantise", "other operations"),
    *("integer depthwise layers", "float depthwise layers", "pools", "attention"),
)
"""Columns of milliseconds that were measured kernel by kernel."""

NUMBERS = (
    *("integer layers", "float layers", "conversions", "ragged integer layers"),
    *("bytes of integer weights", "bytes of float weights"),
    *("crowded integer layers", "crowded float layers"),
)
"""Columns of what kernels that are timed alone do not show.

Numbers are assumed to take `OPERATION_MS` apiece, and bytes of weights `BYTE_MS`: those of a
whole network come from farther away than those of one kernel. So does its code: crowded layers
are their milliseconds times their number, over `CROWD`. Ragged widths are no multiples of
`VECTOR`.
"""

NAMES = (*TIMES, *(f"number: {name}" for name in NUMBERS))
"""What the columns are."""

PRIOR = np.array([1.0] * len(TIMES) + [0.0] * len(NUMBERS))
"""What the columns count for before any network was measured: times, the others not."""

CROWD, VECTOR, BYTE_MS = 50, 16, 1e-7

CODES = 2**62
"""Most combinations of ratios that one integer can tell apart."""

OPERATION_MS = 0.003
"""What an operation takes at least that no kernel stands for."""

ELEMENT_MS = {"add": 5e-7, "quantise": 2.5e-7, "dequantise": 2e-7}
"""Milliseconds per element of what was not measured."""


class LatencyFeatures:
    """Sums the kernels along the executed graphs of candidates.

    Args:
        graph: The structure of the original; with its operations.
        target: The runtime and how it is used.
        kernels: Measured milliseconds.
    """

    def __init__(
        self, graph: ModelGraph, target: Target, kernels: Mapping[KernelKey, float]
    ) -> None:
        flow = flow_of(graph)
        if flow is None:
            raise InvalidInputError(
                explain(
                    "latency features",
                    expected="a graph with its operations",
                    got="one without",
                    remedy="trace the model again",
                )
            )
        self.graph, self.target = graph, target
        self.executed = ExecutedGraph(flow, target)
        self.plan = KernelPlan(graph, target)
        self.kernels = LatencyTable(self.plan, kernels)
        self.layers = self.plan.layers
        self.depthwise = {
            layer.name for layer, _ in self.layers if layer.groups == layer.input_shape[0] > 1
        }
        self.runs = {layer.name: layer.runs for layer, _ in self.layers}
        self.groups = sorted({name for groups in self.plan.groups for name in groups})
        self.has_additions = any(key.kind == "add" for key in kernels)
        self.lines = {
            (kind, bits): _line(kernels, kind, bits)
            for kind, bits in (
                *(("add", INT8), ("add", FLOAT)),
                *(("quantise", FLOAT), ("dequantise", INT8)),
            )
        }
        self.ratios = {group: np.zeros(1) for group in self.groups}
        self.known: dict[int, _Known] = {}
        self.times: dict[tuple[int, tuple[float, ...]], tuple[float, ...]] = {}

    def table(self, candidates: Candidates) -> Columns:
        """Return the columns of candidates.

        Args:
            candidates: n of them.

        Returns:
            `n x 19` milliseconds; see `NAMES`.
        """
        population = Population.of(candidates)
        count = len(population)
        quantised, executable = self._precisions(population)
        places = self._places(population)
        shares: dict[str, Columns] = {}
        rows: dict[str, Columns] = {}
        for index, (layer, groups) in enumerate(self.layers):
            rows[layer.name] = self._layer(index, groups, places, count)
            shares[layer.name] = rows[layer.name][2]
        execution = self.executed.run(quantised, executable, shares, population.dropped, count)
        return self._columns(execution, rows, places, count)

    def _columns(
        self,
        found: Execution,
        rows: Mapping[str, Columns],
        places: Mapping[str, Places],
        count: int,
    ) -> Columns:
        table = np.zeros((count, len(NAMES)))
        numbers = table[:, len(TIMES) :]
        for name, alive in found.present.items():
            if name in rows:
                in_integers, in_floats, _, weights, ragged = rows[name]
                integer = found.integer[name]
                floating = alive & ~integer
                column = 7 if name in self.depthwise else 0
                table[:, column] += in_integers * integer
                table[:, column + 1] += in_floats * floating
                numbers[:, 0] += integer * (self.runs[name] * OPERATION_MS)
                numbers[:, 1] += floating * (self.runs[name] * OPERATION_MS)
                numbers[:, 3] += integer * ragged * OPERATION_MS
                numbers[:, 4] += integer * weights * BYTE_MS
                numbers[:, 5] += floating * weights * (4 * BYTE_MS)
        for place in (0, 1):
            layers = numbers[:, place] / OPERATION_MS
            numbers[:, 6 + place] = layers * (table[:, place] + table[:, 7 + place]) / CROWD
        size = self.target.batch_size
        known = len(self.plan.additions) == len(found.additions)
        for number, (integers, floats, elements) in enumerate(found.additions):
            if known and self.has_additions:
                index, groups = self.plan.additions[number]
                of_integers, of_floats = self._layer(index, groups, places, count)[:2]
            else:
                of_integers = self._elementwise("add", INT8, size * elements)
                of_floats = self._elementwise("add", FLOAT, size * elements)
            table[:, 2] += integers * of_integers
            table[:, 3] += floats * of_floats
        for column, kind, bits, conversions in (
            (4, "quantise", FLOAT, found.quantised),
            (5, "dequantise", INT8, found.dequantised),
        ):
            for mask, elements in conversions:
                table[:, column] += mask * self._elementwise(kind, bits, size * elements)
                numbers[:, 2] += mask * OPERATION_MS
        parts = zip(self.executed.weightless, self.plan.weightless, found.weightless, strict=True)
        for kernel, (index, groups), (alive, share) in parts:
            in_integers, in_floats = self._layer(index, groups, places, count)[:2]
            column = 10 if kernel.kind == "attention" else 9
            table[:, column] += alive * (share * in_integers + (1 - share) * in_floats)
        table[:, 6] = found.others * OPERATION_MS
        return table

    def _elementwise(self, kind: str, bits: int, elements: Columns) -> Columns:
        fixed, slope = self.lines[kind, bits]
        result: Columns = fixed + slope * elements
        return result

    def _precisions(
        self, population: Population
    ) -> tuple[dict[str, NDArray[np.bool_]], dict[str, NDArray[np.bool_]]]:
        """Tell which candidates quantise a layer, and for which the runtime has integers."""
        known = np.array([self._precision(config) for config in population.configs])
        untouched = np.zeros(len(population), np.intp)
        quantised, executable = {}, {}
        for layer, _ in self.layers:
            pairs = known[population.layers.get(layer.name, untouched)]
            possible = "Transpose" not in layer.type
            quantised[layer.name], executable[layer.name] = pairs[:, 0], pairs[:, 1] & possible
        return quantised, executable

    def _precision(self, config: LayerConfig) -> tuple[bool, bool]:
        grids = FLOAT not in (config.weight_bits, config.activation_bits)
        pair = self.target.executed(config.weight_bits, config.activation_bits, config.group_size)
        return grids, max(pair) <= INT8

    def _places(self, population: Population) -> dict[str, Places]:
        """For each group, tell which of its ratios each candidate has; new ones are added."""
        whole = np.zeros(len(population))
        found = {}
        for group in self.groups:
            ratios, known = population.ratios.get(group, whole), self.ratios[group]
            places = np.minimum(np.searchsorted(known, ratios), len(known) - 1)
            if not np.array_equal(known[places], ratios):
                known = self.ratios[group] = np.union1d(known, ratios)
                places = np.searchsorted(known, ratios)
                self.known.clear()  # their codes are others now
            found[group] = places.astype(np.int64)
        return found

    def _layer(
        self,
        index: int,
        groups: tuple[str, ...],
        places: Mapping[str, Places],
        count: int,
    ) -> Columns:
        """Return rows: time in integers, in floats, share of outputs, weights, raggedness."""
        if math.prod(len(self.ratios[group]) for group in groups) > CODES:
            return self._wide_layer(index, groups, places)
        codes = np.zeros(count, np.int64)
        for group in groups:
            codes = codes * len(self.ratios[group]) + places[group]
        known = self.known.setdefault(index, _Known())
        if len(new := known.missing(codes)):
            known.add(new, [self._times(index, self._chosen(groups, code)) for code in new])
        return known.rows(codes)

    def _wide_layer(
        self, index: int, groups: tuple[str, ...], places: Mapping[str, Places]
    ) -> Columns:
        """Return what `_layer` does, for a layer that reads too many groups for one code."""
        table = np.stack([self.ratios[group][places[group]] for group in groups], axis=1)
        chosen, which = np.unique(table, axis=0, return_inverse=True)
        rows = [self._times(index, tuple(ratios)) for ratios in chosen.tolist()]
        found: Columns = np.reshape(rows, (-1, 5))[which.ravel()].T
        return found

    def _chosen(self, groups: tuple[str, ...], code: int) -> tuple[float, ...]:
        """Return the ratios that a code of `_layer` stands for."""
        chosen = []
        for group in reversed(groups):
            code, place = divmod(code, len(self.ratios[group]))
            chosen.append(float(self.ratios[group][place]))
        return tuple(reversed(chosen))

    def _times(self, index: int, ratios: tuple[float, ...]) -> tuple[float, ...]:
        key = (index, ratios)
        if key not in self.times:
            integers = self.plan.kernel((index, ratios, INT8))
            floats = self.plan.kernel((index, ratios, FLOAT))
            possible = any(known.bits == INT8 for known in self.kernels.kernels)
            whole = self.plan.kernel((index, tuple(0.0 for _ in ratios), FLOAT)).out_channels
            ragged = floats.in_channels % VECTOR > 0 or floats.out_channels % VECTOR > 0
            runs = self.plan.runs((index, ratios, FLOAT))
            self.times[key] = (
                runs * self.kernels.time(integers) if possible else 0.0,
                runs * self.kernels.time(floats),
                floats.out_channels / whole,
                float(runs * floats.weights),
                float(runs * ragged),
            )
        return self.times[key]


class _Known:
    """What `_layer` found before, by code."""

    def __init__(self) -> None:
        self._codes, self._rows = np.empty(0, np.int64), np.empty((0, 5))

    def missing(self, codes: Places) -> Places:
        """Return the codes that are not known, each once."""
        if not len(self._codes):
            return np.unique(codes)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.unique(codes[self._codes[places] != codes])

    def add(self, codes: Places, rows: Sequence[tuple[float, ...]]) -> None:
        """Remember rows of codes that are not known."""
        order = np.argsort(codes := np.concatenate([self._codes, codes]))
        self._codes, self._rows = codes[order], np.concatenate([self._rows, rows])[order]

    def rows(self, codes: Places) -> Columns:
        """Return the rows of known codes, one column for each code."""
        found: Columns = self._rows[np.searchsorted(self._codes, codes)].T
        return found


def _line(kernels: Mapping[KernelKey, float], kind: str, bits: int) -> tuple[float, float]:
    """Fit the time of an elementwise kernel as a line in its elements."""
    points = [(k.operations, ms) for k, ms in kernels.items() if (k.kind, k.bits) == (kind, bits)]
    if not points:
        return OPERATION_MS, ELEMENT_MS[kind]
    elements, times = np.array(points, float).T
    if len(set(elements)) < 2:
        return 0.0, float(np.median(times / elements))
    weights = 1.0 / times
    design = np.stack([np.ones_like(elements), elements], axis=1)
    fixed, slope = np.linalg.lstsq(design * weights[:, None], np.ones_like(times), rcond=None)[0]
    if fixed < 0.0 or slope < 0.0:
        return 0.0, float(np.median(times / elements))
    return float(fixed), float(slope)
