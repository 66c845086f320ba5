"""From the sum of kernels to a latency: a line per precision, and a price per boundary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.core.candidate import Candidate
from autocompress.core.schema import check_number, check_record
from autocompress.cost.latency_table import check_times
from autocompress.errors import check_type

BOUNDARY_MS = 0.015
"""What a change of precision costs until one was measured: two conversions of a small tensor."""

RIDGE = 0.1
"""Relative spread of kernel sums below which a slope is not trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """A candidate whose latency was measured from end to end.

    Attributes:
        candidate: The candidate.
        latency_ms: What was measured on its artifact.
        kernel_ms: The sum of its kernels, from the profile.
        boundaries: Changes of precision from one of its layers to the next.
        model: Fingerprint of the model that was compressed; "" if unknown.
    """

    candidate: Candidate
    latency_ms: float
    kernel_ms: float
    boundaries: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        check_times({"latency_ms": self.latency_ms, "kernel_ms": self.kernel_ms})
        check_type("anchor 'boundaries'", self.boundaries, int)
        check_number("anchor 'boundaries'", self.boundaries, low=0)
        check_type("anchor 'model'", self.model, str)

    def to_json(self) -> dict[str, Any]:
        """Return the anchor as a JSON object."""
        return {
            "candidate": self.candidate.to_json(),
            "latency_ms": self.latency_ms,
            "kernel_ms": self.kernel_ms,
            "boundaries": self.boundaries,
            "model": self.model,
        }

    @classmethod
    def from_json(cls, record: object) -> "Anchor":
        """Read an anchor from what `to_json` returned."""
        keys = ("candidate", "latency_ms", "kernel_ms", "boundaries", "model")
        fields: dict[str, Any] = dict(check_record(record, what="anchor", keys=keys))
        fields["candidate"] = Candidate.from_json(fields["candidate"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """Latency as `offset_ms + scale * kernel_ms`; both are finite, `scale` >= 0."""

    offset_ms: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_number("correction 'offset_ms'", self.offset_ms, low=-math.inf)
        check_number("correction 'scale'", self.scale, low=0.0)


def fit_correction(anchors: Sequence[Anchor]) -> Correction:
    """Fit latency as a line in the sum of kernels.

    Least squares of the relative error. The slope is drawn by a ridge towards
    the mean ratio of the two, the more the closer the sums lie together: equal
    sums, or one anchor, give that ratio and no offset.

    Args:
        anchors: At least one.

    Example:
        >>> points = [(1.0, 1.5), (2.0, 2.5), (4.0, 4.5)]
        >>> anchors = [Anchor(candidate=Candidate(), kernel_ms=x, latency_ms=y) for x, y in points]
        >>> fitted = fit_correction(anchors)
        >>> 0.3 < fitted.offset_ms < 0.5 and 1.0 < fitted.scale < 1.1
        True
    """
    sums = np.array([anchor.kernel_ms for anchor in anchors])
    measured = np.array([anchor.latency_ms for anchor in anchors])
    weights = measured**-2 / (measured**-2).sum()
    sum_mean, measured_mean = float(weights @ sums), float(weights @ measured)
    ratio, ridge = measured_mean / sum_mean, (RIDGE * sum_mean) ** 2 / len(anchors)
    spread = float(weights @ (sums - sum_mean) ** 2)
    joint = float(weights @ ((sums - sum_mean) * (measured - measured_mean)))
    scale = max((joint + ridge * ratio) / (spread + ridge), 0.0)
    return Correction(offset_ms=measured_mean - scale * sum_mean, scale=scale)
