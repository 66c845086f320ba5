"""A device profile: measured kernels, and how their sum becomes a latency."""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autocompress.artifact.session import check_available, runtime_version
from autocompress.core.candidate import Candidate
from autocompress.core.files import read_json, write_json
from autocompress.core.population import Candidates
from autocompress.core.schema import SCHEMA_VERSION, check_number, check_record
from autocompress.core.target import Target
from autocompress.cost.content import checked_content
from autocompress.cost.correction import BOUNDARY_MS, Anchor, Correction, fit_correction
from autocompress.cost.executed_graph import flow_of
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import KernelPlan, precision_class
from autocompress.cost.latency_features import PRIOR, LatencyFeatures
from autocompress.cost.latency_table import LatencyTable, check_times
from autocompress.cost.learned import FEWEST_FOR_CHOICE, UNKNOWN_ERROR, LatencyModel, fit_latency
from autocompress.cost.measurement import device_name
from autocompress.cost.profiling import measure_kernels
from autocompress.cost.sampling import sample_kernels
from autocompress.cost.staircase import measure_step
from autocompress.errors import check_type
from autocompress.graph.structure import ModelGraph

MAX_KERNELS = 800
"""Kernels that a profile measures at most; widths between are interpolated."""

MOST_WANTED = 1200
"""Kernels that are considered at most."""


class HasGraph(Protocol):
    """Anything bound to one model, for example a search space."""

    @property
    def graph(self) -> ModelGraph:
        """The structure of the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProfile:
    """What was measured once on a device, and predicts any candidate's latency.

    Attributes:
        target: The runtime and how it is used.
        device: Name of the processor.
        versions: Versions of what ran.
        created: When the kernels were measured, ISO 8601.
        kernels: Milliseconds per kernel.
        anchors: Whole networks measured since.
        corrections: By precision class, "float" or "int8"; a class without
            anchors is not corrected.
        boundary_ms: What a change of precision from one layer to the next
            costs; assumed until a network with some was measured.
        version: 1, and one more after each refit.
    """

    target: Target
    device: str
    versions: Mapping[str, str]
    created: str
    kernels: Mapping[KernelKey, float]
    anchors: tuple[Anchor, ...] = ()
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    boundary_ms: float = BOUNDARY_MS
    version: int = 1
    _memory: list["_Estimates"] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_times({str(key): ms for key, ms in self.kernels.items()})
        check_number("profile 'boundary_ms'", self.boundary_ms, low=0.0)

    def predict_latency(self, space: HasGraph | ModelGraph, candidate: Candidate) -> float:
        """Predict the latency of a candidate, without building it.

        Args:
            space: The search space, or the graph of the original model.
            candidate: The joint configuration.

        Returns:
            Milliseconds per inference at the target's batch size.

        Raises:
            InvalidInputError: If nothing in the profile resembles a kernel.
        """
        return float(self.predict_latencies(space, [candidate])[0][0])

    def predict_latencies(
        self, space: HasGraph | ModelGraph, candidates: Candidates
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict the latencies of many candidates at once.

        Kernels are summed along the graph that the runtime executes, with what
        conversions between precisions cost; a fit to the anchors of the same
        model corrects the sum.

        Args:
            space: The search space, or the graph of the original model.
            candidates: n joint configurations.

        Returns:
            `n` milliseconds and the standard deviation of each.

        Raises:
            InvalidInputError: If nothing in the profile resembles a kernel.
        """
        estimates = self._estimates(space)
        if estimates.features is None or estimates.model is None:
            found = np.array([self._corrected(space, candidate) for candidate in candidates])
            return found, UNKNOWN_ERROR * found
        return estimates.model.predict(estimates.features.table(candidates))

    def describe_model(self, space: HasGraph | ModelGraph) -> str:
        """Say in words how predictions are made, and how far off they are."""
        estimates = self._estimates(space)
        if estimates.model is None:
            return f"sums of kernels, corrected by {len(self.anchors)} networks"
        count, model = len(estimates.anchors), estimates.model
        error = "typical error" if count >= FEWEST_FOR_CHOICE else "too few to tell, assumed error"
        source = f"over {count} measured networks" if count else "of kernels alone"
        return f"{model.chosen} {source}, {error} {model.error:.1%}"

    def _corrected(self, space: HasGraph | ModelGraph, candidate: Candidate) -> float:
        """Correct the plain sum of kernels; for graphs whose operations are not known."""
        name = precision_class(candidate, self.target)
        correction = self.corrections.get(name, Correction())
        corrected = correction.offset_ms + correction.scale * self.kernel_ms(space, candidate)
        return corrected + self.boundary_ms * self._table(space).plan.boundaries(candidate)

    def predict_costs(self, space: HasGraph | ModelGraph, candidate: Candidate) -> dict[str, float]:
        """Predict what only the device tells: "latency_ms"."""
        return {n: v[0].item() for n, v in self.predict_many(space, [candidate]).items()}

    def predict_many(
        self, space: HasGraph | ModelGraph, candidates: Candidates
    ) -> dict[str, NDArray[np.float64]]:
        """Predict `n` values each, rounded: none depends on the candidates beside it."""
        found, _ = self.predict_latencies(space, candidates)
        return {"latency_ms": np.array([float(f"{ms:.9g}") for ms in found.tolist()])}

    def kernel_ms(self, space: HasGraph | ModelGraph, candidate: Candidate) -> float:
        """Sum the kernels of a candidate, in milliseconds, uncorrected."""
        return self._table(space).total(candidate)

    def anchor(
        self, space: HasGraph | ModelGraph, candidate: Candidate, latency_ms: float
    ) -> Anchor:
        """Make an anchor of a candidate whose latency was measured."""
        table = self._table(space)
        return Anchor(
            candidate=candidate,
            latency_ms=latency_ms,
            kernel_ms=table.total(candidate),
            boundaries=table.plan.boundaries(candidate),
            model=table.plan.graph.fingerprint,
        )

    def _table(self, space: HasGraph | ModelGraph) -> "LatencyTable":
        return self._estimates(space).table

    def _estimates(self, space: HasGraph | ModelGraph) -> "_Estimates":
        graph = space if isinstance(space, ModelGraph) else space.graph
        if not self._memory or self._memory[0].table.plan.graph is not graph:
            self._memory[:] = [_Estimates(self, graph)]
        return self._memory[0]

    def mismatches(self) -> list[str]:
        """Say in what this host differs from the one that was profiled; empty if in nothing."""
        here = {"processor": device_name(self.target.runtime), **runtime_version(self.target)}
        there = {"processor": self.device, **self.versions}
        return [
            f"{key} {there[key]} was profiled, this is {value}"
            for key, value in here.items()
            if key in there and there[key] != value
        ]

    def refit(self, new_anchors: Iterable[Anchor]) -> "DeviceProfile":
        """Fit the corrections anew, with more anchors.

        Args:
            new_anchors: Measured candidates; one that the profile has already,
                of the same model, replaces the older measurement.

        Returns:
            A profile whose version is one higher.
        """
        merged = {(a.model, a.candidate): a for a in (*self.anchors, *new_anchors)}
        classes: dict[str, list[Anchor]] = defaultdict(list)
        for anchor in merged.values():
            if anchor.boundaries == 0:
                classes[precision_class(anchor.candidate, self.target)].append(anchor)
        corrections = {name: fit_correction(anchors) for name, anchors in classes.items()}
        return replace(
            self,
            anchors=tuple(merged.values()),
            corrections=corrections,
            boundary_ms=self._fit_boundary(merged.values(), corrections),
            version=self.version + 1,
        )

    def _fit_boundary(
        self, anchors: Iterable[Anchor], corrections: Mapping[str, Correction]
    ) -> float:
        """Take the median of what a boundary adds to the networks that have some."""
        added = []
        for anchor in anchors:
            name = precision_class(anchor.candidate, self.target)
            correction = corrections.get(name, Correction())
            if anchor.boundaries > 0:
                plain = correction.offset_ms + correction.scale * anchor.kernel_ms
                added.append(max(0.0, anchor.latency_ms - plain) / anchor.boundaries)
        return float(np.median(added)) if added else self.boundary_ms

    def save(self, path: Path) -> None:
        """Write the profile as JSON, atomically."""
        write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "target": self.target.to_json(),
                "device": self.device,
                "versions": dict(self.versions),
                "created": self.created,
                "kernels": {str(key): ms for key, ms in self.kernels.items()},
                "anchors": [anchor.to_json() for anchor in self.anchors],
                "boundary_ms": self.boundary_ms,
                "corrections": {
                    name: {"offset_ms": correction.offset_ms, "scale": correction.scale}
                    for name, correction in self.corrections.items()
                },
                "version": self.version,
            },
        )

    @classmethod
    def load(cls, path: Path) -> "DeviceProfile":
        """Read a profile that `save` wrote.

        Raises:
            MissingFileError: If there is no such file.
            InvalidInputError: If the file is not a device profile.
        """
        decoded = read_json(path)
        with checked_content(path, "a device profile", remedy="profile the device again"):
            return _from_record(decoded)


class _Estimates:
    """What predicts the latencies of one model's candidates."""

    def __init__(self, profile: DeviceProfile, graph: ModelGraph) -> None:
        self.table = LatencyTable(KernelPlan(graph, profile.target), profile.kernels)
        self.features: LatencyFeatures | None = None
        self.anchors = [a for a in profile.anchors if a.model in ("", graph.fingerprint)]
        if flow_of(graph) is not None:
            self.features = LatencyFeatures(graph, profile.target, profile.kernels)

    @cached_property
    def model(self) -> LatencyModel | None:
        """The fit to the anchors, made when it is first asked; None without features."""
        if self.features is None:
            return None
        rows = self.features.table([anchor.candidate for anchor in self.anchors])
        latencies = np.array([anchor.latency_ms for anchor in self.anchors])
        return fit_latency(rows, latencies, PRIOR)


def profile_device(
    graph: ModelGraph,
    widths: Mapping[str, Sequence[float]],
    target: Target,
    *,
    seconds: float = 60.0,
    find_unit: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> DeviceProfile:
    """Measure the kernels that candidates of a model can run on this host.

    Up to `MAX_KERNELS` are measured all in turns. Where there are more, those
    where the staircase bends are; see `sample_kernels`. What conversions
    between precisions cost is among them.

    Args:
        graph: The structure of the model.
        widths: Pruning ratios to cover, by group.
        target: The runtime and how it is used.
        seconds: Time for the measurement, building the models not counted.
        find_unit: Also measure in which units of channels the target gets
            faster; its `round_to` is then what was found.
        on_progress: Told how many kernels are done, and of how many at most.

    Returns:
        A profile without anchors.
    """
    check_available(target)
    keys = wanted_kernels(graph, widths, target)
    most, sorted_keys = min(MAX_KERNELS, len(keys)), sorted(keys, key=str)
    done = 0
    known: dict[KernelKey, float] = {}

    def measure(chosen: Sequence[KernelKey]) -> Mapping[KernelKey, float]:
        """Measure kernels beside one of the first, which tells how fast the host is by now."""
        nonlocal done
        before = done
        marker = max(known, key=lambda key: known[key]) if known else None
        times = measure_kernels(
            [*chosen, *([marker] if marker else [])],
            threads=target.threads,
            batch_size=target.batch_size,
            runtime=target.runtime,
            seconds=seconds * len(chosen) / most,
            on_progress=None
            if on_progress is None
            else lambda ready, _: on_progress(before + ready, max(most, before + ready)),
        )
        done += len(chosen)
        if marker is not None:
            drift = known[marker] / times.pop(marker)
            times = {key: drift * ms for key, ms in times.items()}
        known.update(times)
        return times

    kernels = sample_kernels(keys, measure, most) if len(keys) > most else measure(sorted_keys)
    if find_unit:
        target = replace(target, round_to=measure_step(target))
    return DeviceProfile(
        target=target,
        device=device_name(target.runtime),
        versions={**runtime_version(target), "python": platform.python_version()},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        kernels=kernels,
    )


def wanted_kernels(
    graph: ModelGraph,
    widths: Mapping[str, Sequence[float]],
    target: Target,
    most: int = MOST_WANTED,
) -> set[KernelKey]:
    """List the kernels that candidates of a model can run, and the conversions between them.

    Where widths give more than `most`, fewer are taken, evenly spaced,
    the smallest and the largest among them: first fewer inputs of layers whose
    outputs vary too, down to three, then fewer of all.

    Args:
        graph: The structure of the model.
        widths: Pruning ratios to cover, by group.
        target: The runtime and how it is used.
        most: Kernels at most, conversions apart.
    """
    plan = KernelPlan(graph, target)
    levels = max((len(set(ratios)) + 1 for ratios in widths.values()), default=1)
    rows = levels
    keys = set(plan.possible_kernels(widths, levels, rows))
    while len(keys) > most and levels > 2:
        levels, rows = (levels, rows - 1) if rows > 3 else (levels - 1, min(rows, levels - 1))
        keys = set(plan.possible_kernels(widths, levels, rows))
    return keys | set(plan.conversions())


def _from_record(decoded: object) -> DeviceProfile:
    keys = ("target", "device", "versions", "created", "kernels", "anchors", "corrections")
    record = check_record(decoded, what="device profile", keys=(*keys, "boundary_ms", "version"))
    return DeviceProfile(
        target=Target.from_json(record["target"]),
        device=str(record["device"]),
        versions=dict(record["versions"]),
        created=str(record["created"]),
        kernels={KernelKey.parse(text): ms for text, ms in record["kernels"].items()},
        anchors=tuple(Anchor.from_json(value) for value in record["anchors"]),
        corrections={
            name: Correction(**check_record(value, what="correction", keys=("offset_ms", "scale")))
            for name, value in record["corrections"].items()
        },
        boundary_ms=record["boundary_ms"],
        version=check_type("profile 'version'", record["version"], int),
    )
