"""The sum of kernels: times looked up, interpolated or scaled for every site of a candidate."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping

from autocompress.core.candidate import Candidate
from autocompress.cost.kernel_key import WEIGHTLESS, KernelKey
from autocompress.cost.kernels import KernelPlan, Site
from autocompress.errors import InvalidInputError, explain

OPERATION_MS = 5e-7
"""Milliseconds per operation of pools and attentions that were not measured."""


class LatencyTable:
    """Times of the kernels at every site met so far.

    Args:
        plan: Where a model runs which kernel.
        kernels: Measured milliseconds.
    """

    def __init__(self, plan: KernelPlan, kernels: Mapping[KernelKey, float]) -> None:
        self.plan = plan
        self.kernels = kernels
        self.families: dict[Hashable, dict[int, dict[int, float]]] = {}
        for key, ms in kernels.items():
            by_input = self.families.setdefault(key.family, defaultdict(dict))
            by_input[key.in_channels][key.out_channels] = ms
        self.times: dict[Site, float] = {}

    def total(self, candidate: Candidate) -> float:
        """Sum the times of all that a candidate runs."""
        total = 0.0
        for site in self.plan.sites(candidate):
            ms = self.times.get(site)
            if ms is None:
                once = self.time(self.plan.kernel(site))
                ms = self.times[site] = once * self.plan.runs(site)
            total += ms
        return total

    def time(self, key: KernelKey) -> float:
        """Return the time of a kernel: measured, interpolated, or scaled."""
        if key in self.kernels:
            return self.kernels[key]
        family = self.families.get(key.family)
        if family is None:
            return self._scaled(key)
        if key.in_channels == key.out_channels and all(list(v) == [k] for k, v in family.items()):
            return interpolate({k: v[k] for k, v in family.items()}, key.out_channels)
        # Rows that reach as far are read between their widths; the others would be extended.
        wide = {k: row for k, row in family.items() if min(row) <= key.out_channels <= max(row)}
        by_input = {
            width: interpolate(row, key.out_channels) for width, row in (wide or family).items()
        }
        return interpolate(by_input, key.in_channels)

    def _scaled(self, key: KernelKey) -> float:
        """Scale the kernel of the same kind and bits that does most nearly as much."""
        alike = [
            other for other in self.kernels if (other.kind, other.bits) == (key.kind, key.bits)
        ]
        if not alike and key.kind in WEIGHTLESS:  # older profiles have none of these
            return OPERATION_MS * key.operations
        if not alike:
            raise InvalidInputError(
                explain(
                    f"kernel '{key}'",
                    expected="a profile with kernels of its kind and bits",
                    got=f"{len(self.kernels)} others",
                    remedy="profile the device again with this model",
                )
            )
        wanted = math.log(key.operations)
        nearest = min(alike, key=lambda other: abs(math.log(other.operations) - wanted))
        return self.kernels[nearest] * key.operations / nearest.operations


def interpolate(times: Mapping[int, float], width: int) -> float:
    """Read a time between measured widths; in proportion outside of them.

    Args:
        times: Milliseconds by width; at least one.
        width: The width that is wanted.

    Example:
        >>> interpolate({8: 1.0, 16: 3.0}, 12), interpolate({8: 1.0, 16: 3.0}, 32)
        (2.0, 6.0)
    """
    low = max((known for known in times if known <= width), default=0)
    high = min((known for known in times if known >= width), default=0)
    if low and high:
        share = (width - low) / (high - low) if high > low else 0.0
        return times[low] + share * (times[high] - times[low])
    edge = low or high
    return times[edge] * width / edge


def check_times(times: Mapping[str, float]) -> None:
    """Refuse times that are not positive numbers of milliseconds."""
    for name, ms in times.items():
        number = isinstance(ms, (int, float)) and not isinstance(ms, bool)
        if not (number and math.isfinite(ms) and ms > 0):
            raise InvalidInputError(
                explain(
                    f"time of '{name}'",
                    expected="milliseconds > 0",
                    got=repr(ms),
                    remedy="measure it again",
                )
            )
