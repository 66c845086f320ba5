"""A trial that was asked for, and what makes it the trial that it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autocompress.core.candidate import Candidate

IDENTITY = ("origin", "attempt", "attributes", "candidate", "design", "slot")
"""What a trial is, in contrast to what it found; a retry inherits it."""

RELEASED = "released"
"""Attribute of a trial that ran when its study was closed, which is no fault of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """A trial that waits for its results.

    Attributes:
        slot: Logical number from 0, which seeds the trial; a retry keeps it.
        trial: Optuna's number, which a retry does not keep.
        params: A value for every parameter of the space.
        candidate: What they stand for, canonical.
        origin: Which design or sampler proposed it.
        attempt: 1, or more for a retry.
        attributes: What was enqueued along with a design.
    """

    slot: int
    trial: int
    params: Mapping[str, float]
    candidate: Candidate
    origin: str
    attempt: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


def trial_attributes(
    *, slot: int, candidate: Candidate, origin: str, attributes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the user attributes that a trial begins with."""
    return {
        "origin": origin,
        "attempt": 1,
        "attributes": dict(attributes or {}),
        "candidate": candidate.to_json(),
        "slot": slot,  # written last: a trial without a slot never began
    }
