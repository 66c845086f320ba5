"""What a study found, ready for any table: one row per artifact, baselines first."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from autocompress.core.candidate import UNIFORM, Candidate
from autocompress.core.target import FLOAT

BASELINE_NAMES: Mapping[str, str] = {"fp32": "original", "int8": "plain int8"}
"""Baselines of a front by their key, and what tables call them."""

Kind = Literal["baseline", "front", "dominated", "infeasible"]
"""What an artifact is to the reader; only "front" is a result of the search."""


class Member(Protocol):
    """A member of a front, from disk or from a search that just ended."""

    @property
    def id(self) -> str:
        """Name of the member's folder."""

    @property
    def candidate(self) -> Candidate:
        """What was done to the model."""

    @property
    def predicted(self) -> Mapping[str, float]:
        """Predicted values by name."""

    @property
    def measured(self) -> Mapping[str, Any]:
        """Measured values by name."""


DRIFT, FEWEST = 0.15, 3
"""Error of every predicted latency, as a fraction, and how many, that tell of another speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRow:
    """One artifact: what was predicted of it, and what was measured on it.

    Attributes:
        id: The member's id, or the baseline's name.
        kind: Whether it is on the front, and if not, why.
        done: What was done to the model, in words.
        predicted: Predicted values by name; empty for a baseline.
        measured: Measured values by name.
        latency_ratio: Measured latency over that of the original; None if
            either was not measured.
    """

    id: str
    kind: Kind
    done: str
    predicted: Mapping[str, float]
    measured: Mapping[str, Any]
    latency_ratio: float | None

    @property
    def accuracy_error(self) -> float | None:
        """Accuracy measured on `val` minus the predicted one; None if either is unknown."""
        predicted, measured = self.predicted.get("accuracy"), self.measured.get("val_accuracy")
        return None if predicted is None or measured is None else measured - predicted

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy on `val`; None where its images were not counted."""
        accuracy, images = self.measured.get("val_accuracy"), self.measured.get("val_images")
        return None if accuracy is None or not images else binomial_interval(accuracy, images)

    @property
    def latency_error(self) -> float | None:
        """Measured minus predicted latency, as a fraction of the predicted one."""
        predicted, measured = self.predicted.get("latency_ms"), self.measured.get("latency_ms")
        return None if not predicted or measured is None else measured / predicted - 1.0


def baseline_rows(baseline: Mapping[str, Mapping[str, Any]]) -> list[ArtifactRow]:
    """List the baselines.

    Args:
        baseline: Measured values by baseline: "fp32", and "int8" if there is one.
    """
    return [
        ArtifactRow(
            id=name,
            kind="baseline",
            done="every layer W8A8, not trained" if key == "int8" else "nothing",
            predicted={},
            measured=baseline[key],
            latency_ratio=_ratio(baseline[key], baseline),
        )
        for key, name in BASELINE_NAMES.items()
        if key in baseline
    ]


def member_rows(
    members: Sequence[Member], kind: Kind, baseline: Mapping[str, Mapping[str, Any]]
) -> list[ArtifactRow]:
    """List members of one kind.

    Args:
        members: The members.
        kind: What they are.
        baseline: Measured values by baseline, for the ratios.

    Returns:
        The front from the slowest to the fastest, others in the order given.
    """
    if kind == "front":
        members = sorted(members, key=lambda member: -member.measured.get("latency_ms", 0.0))
    return [
        ArtifactRow(
            id=member.id,
            kind=kind,
            done=describe(member.candidate),
            predicted=member.predicted,
            measured=member.measured,
            latency_ratio=_ratio(member.measured, baseline),
        )
        for member in members
    ]


def measured_words(rows: Sequence[ArtifactRow]) -> str:
    """Say where all values come from that are not predicted.

    Example:
        >>> measured_words([])
        'all else is measured on the artifact'
    """
    if any(str(row.measured.get("device", "")).endswith(", simulated") for row in rows):
        return (
            "accuracy and sizes are measured on the artifact, latency and energy are computed by "
            "the simulation"
        )
    return "all else is measured on the artifact"


def timing_notes(rows: Sequence[ArtifactRow]) -> list[str]:
    """Say what a reader must know of the latencies; nothing if they were measured well.

    Example:
        >>> timing_notes([])
        []
    """
    return [note for note in (_noise(rows), _runs(rows), _drift(rows)) if note]


def _noise(rows: Sequence[ArtifactRow]) -> str:
    timed = [row for row in rows if "latency_ms" in row.measured]
    noisy = sum(bool(row.measured.get("latency_noisy")) for row in timed)
    if not noisy:
        return ""
    return (
        f"The host was too noisy for {noisy} of {len(timed)} latencies: their 95 % intervals "
        "stayed wide. Measure the files again on a quiet host before you compare them closely."
    )


def _runs(rows: Sequence[ArtifactRow]) -> str:
    scaled = sum("latency_scale" in row.measured for row in rows)
    if not scaled:
        return ""
    return (
        f"The search has not ended: {scaled} of {len(rows)} latencies are from other runs than the "
        "original's last one, and scaled by what the original took in both."
    )


def _drift(rows: Sequence[ArtifactRow]) -> str:
    """Tell of a host that was all along slower or faster than when it was profiled."""
    errors = [row.latency_error for row in rows if row.latency_error is not None]
    if len(errors) < FEWEST or not (min(errors) > DRIFT or max(errors) < -DRIFT):
        return ""
    middle = statistics.median(errors)
    return (
        f"All latencies are {'above' if middle > 0 else 'below'} what was predicted, half of them "
        f"by {abs(middle):.0%} or more: the host was probably "
        f"{'slower' if middle > 0 else 'faster'} than when it was profiled. Ratios to fp32 hold, "
        "since each file was timed in one run with it."
    )


def binomial_interval(fraction: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction of independent successes (Wilson 1927).

    Args:
        fraction: The fraction that was seen, [0, 1].
        count: Of how many, >= 1.

    Example:
        >>> low, high = binomial_interval(0.9, 1000)
        >>> round(low, 4), round(high, 4)
        (0.8798, 0.9171)
    """
    z, fraction = 1.959964, min(1.0, max(0.0, fraction))
    centre = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = math.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2))
    half = z * spread / (1 + z**2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def describe(candidate: Candidate) -> str:
    """Say in words what a candidate does to a model.

    Example:
        >>> describe(Candidate(dropped_blocks=("layer1.1",), pruning_ratios={"conv1": 0.25}))
        '1 block dropped, 25 % of the channels of 1 group'
        >>> describe(Candidate())
        'nothing'
    """
    parts = []
    if count := len(candidate.dropped_blocks):
        parts.append(f"{count} block{'s' if count > 1 else ''} dropped")
    ratios = [ratio for ratio in candidate.pruning_ratios.values() if ratio > 0]
    if ratios:
        groups = f"{len(ratios)} group{'s' if len(ratios) > 1 else ''}"
        parts.append(f"{100 * sum(ratios) / len(ratios):.0f} % of the channels of {groups}")
    weights = {c.weight_bits for c in candidate.layers.values() if c.weight_bits != FLOAT}
    activations = {c.activation_bits for c in candidate.layers.values() if not c.is_default}
    if weights:
        parts.append(f"W{_span(weights)} A{_span(activations)}")
    if any(c.weight_format != UNIFORM for c in candidate.layers.values()):
        parts.append("codebooks")
    sparse = [c.sparsity for c in candidate.layers.values() if c.sparsity > 0.0]
    if sparse:
        layers = f"{len(sparse)} layer{'s' if len(sparse) > 1 else ''}"
        parts.append(f"{100 * sum(sparse) / len(sparse):.0f} % zeros in {layers}")
    return ", ".join(parts) or "nothing"


def _ratio(measured: Mapping[str, Any], baseline: Mapping[str, Mapping[str, Any]]) -> float | None:
    latency, original = measured.get("latency_ms"), baseline.get("fp32", {}).get("latency_ms")
    return latency / original if latency is not None and original else None


def _span(bits: set[int]) -> str:
    return str(min(bits)) if len(bits) == 1 else f"{min(bits)}-{max(bits)}"
