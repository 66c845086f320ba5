"""Fronts of several methods compared: chosen on `val`, judged on `test`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy.stats import t as student

from autocompress.core.pareto import hypervolume, non_dominated_mask
from autocompress.core.schema import check_record

FREE = "int8"
"""Method whose files count for all others, as the original does: whoever has the model has both."""

ACCURACY_ROOM = 0.05
"""Accuracy below the original's at which the reference point lies."""

NOISY = 0.03
"""Width of an interval, as a share of what it is of, from which a measurement is called noisy."""

LATENCY_ROOM = 1.1
"""Latency of the reference point, as a multiple of the original's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One file, measured beside all others.

    Attributes:
        method: What made it.
        seed: Seed of the run that made it.
        name: What the method calls it.
        path: The file, relative to the folder of the comparison.
        val_accuracy: Accuracy on `val`, [0, 1].
        accuracy: Accuracy on `test`, [0, 1].
        latency_ms: Median latency.
        latency_ci95_ms: Its 95 % confidence interval.
        reference_ms: Median latency of the original in the same interleaved run. Points of
            several runs are compared by the ratio to it.
        file_bytes: Size of the file that runs.
        ratio_ci95: 95 % confidence interval of the ratio to the original's latency, round by
            round of that run; None where it was not kept.
    """

    method: str
    seed: int
    name: str
    path: str
    val_accuracy: float
    accuracy: float
    latency_ms: float
    latency_ci95_ms: tuple[float, float]
    reference_ms: float
    file_bytes: int
    ratio_ci95: tuple[float, float] | None = None

    @property
    def latency_ratio(self) -> float:
        """Latency as a multiple of the original's in the same run."""
        return self.latency_ms / self.reference_ms

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """Interval of the ratio: that of the rounds, or of the latency alone."""
        low, high = self.latency_ci95_ms
        return self.ratio_ci95 or (low / self.reference_ms, high / self.reference_ms)

    @property
    def noisy(self) -> bool:
        """Whether its interval is too wide to tell files a few per cent apart."""
        low, high = self.ratio_interval
        return high - low > NOISY * self.latency_ratio

    def beats(self, other: "Point") -> bool:
        """Tell whether this is no less accurate on `test`, and faster beyond both intervals."""
        faster = self.ratio_interval[1] < other.ratio_interval[0]
        return self.accuracy >= other.accuracy and faster

    def to_json(self) -> dict[str, Any]:
        """Return the point as a JSON object."""
        ends = self.ratio_ci95 and list(self.ratio_ci95)
        return asdict(self) | {"latency_ci95_ms": list(self.latency_ci95_ms), "ratio_ci95": ends}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Point":
        """Read a point from what `to_json` returned."""
        keys = [field.name for field in fields(cls)]
        needed = [key for key in keys if key != "ratio_ci95"]
        values = dict(check_record(record, what="point", keys=keys, required=needed))
        low, high = values.pop("latency_ci95_ms")
        ends = values.pop("ratio_ci95", None)
        return cls(**values, latency_ci95_ms=(low, high), ratio_ci95=ends and (ends[0], ends[1]))


def chosen(points: Sequence[Point]) -> list[Point]:
    """Return the points that nothing beats on `val` accuracy and latency, fastest first."""
    if not points:
        return []
    losses = np.array([[-point.val_accuracy, point.latency_ratio] for point in points])
    front = [p for p, on in zip(points, non_dominated_mask(losses), strict=True) if on]
    return sorted(front, key=lambda point: (point.latency_ratio, point.val_accuracy))


def front_volume(points: Sequence[Point], baseline: Point) -> float:
    """Measure what a method's front is worth, on `test`, as a fraction of an ideal.

    The members are chosen on `val`; the hypervolume is that of their accuracy
    on `test` and their latency. Its reference point lies `ACCURACY_ROOM`
    below the original's accuracy and at `LATENCY_ROOM` times its latency. One
    that is as accurate as the original and takes no time is worth 1.

    Args:
        points: What the method made.
        baseline: The original in fp32.

    Returns:
        0 if no point is within the reference; above 1 only for files that are
        more accurate than the original.
    """
    front = chosen(points)
    if not front:
        return 0.0
    losses = np.array([[1.0 - p.accuracy, p.latency_ratio] for p in front])
    corner = np.array([1.0 - baseline.accuracy + ACCURACY_ROOM, LATENCY_ROOM])
    return hypervolume(losses, corner) / (ACCURACY_ROOM * LATENCY_ROOM)


def volumes(points: Sequence[Point], baseline: Point) -> dict[str, dict[int, float]]:
    """Return `front_volume` of every method and seed, with what everyone has in seconds.

    That is the original, and the file of `FREE` where it was run with the seed.

    Args:
        points: What all methods made, in any order.
        baseline: The original; it belongs to no method.

    Returns:
        By method, the value of every seed that made anything, in the order of the seeds.
    """
    cells: dict[str, dict[int, list[Point]]] = {}
    for point in points:
        cells.setdefault(point.method, {}).setdefault(point.seed, []).append(point)
    free = cells.get(FREE, {})
    return {
        method: {
            seed: front_volume([baseline, *free.get(seed, []), *seeds[seed]], baseline)
            for seed in sorted(seeds)
        }
        for method, seeds in cells.items()
    }


def joined(earlier: Sequence[Point], later: Sequence[Point]) -> list[Point]:
    """Join the points of two interleaved runs; the later one's replace their methods and seeds.

    Args:
        earlier: The original first, then what was made.
        later: The same of another run.

    Returns:
        The later original first, then the points of both by method and seed.
    """
    made = {(point.method, point.seed) for point in later}
    kept = [p for p in earlier[1:] if (p.method, p.seed) not in made]
    return [*later[:1], *sorted((*kept, *later[1:]), key=lambda p: (p.method, p.seed, p.path))]


def mean_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> dict[str, float] | None:
    """Bound the mean of paired differences by Student's t, at 95 % confidence.

    Args:
        first: Values by seed.
        second: Likewise; seeds that only one of them has do not count.

    Returns:
        "mean", "low" and "high" of first minus second, and "seeds", how many
        they have in common; None below two.

    Example:
        >>> mean_difference({0: 3.0, 1: 4.0, 2: 5.0}, {2: 3.0, 1: 2.0, 0: 1.0})
        {'mean': 2.0, 'low': 2.0, 'high': 2.0, 'seeds': 3}
    """
    common = sorted(first.keys() & second.keys())
    if len(common) < 2:
        return None
    differences = np.array([first[seed] - second[seed] for seed in common])
    mean, error = float(differences.mean()), differences.std(ddof=1) / np.sqrt(len(differences))
    reach = float(student.ppf(0.975, len(differences) - 1) * error)
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "seeds": len(common)}
