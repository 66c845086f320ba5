"""Trials whose parameters are given: the retry of a failed one, or a design that was queued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autocompress.controller.ticket import IDENTITY, RELEASED, trial_attributes
from autocompress.space.bound import BoundSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A trial that nothing is proposed for.

    Attributes:
        params: A value for every parameter of the space.
        attributes: The user attributes that it begins with.
    """

    params: Mapping[str, float]
    attributes: Mapping[str, Any]


def next_given(
    latest: Mapping[int, FrozenTrial], designs: Sequence[Mapping[str, Any]], space: BoundSpace
) -> Given | None:
    """Return the retry of the lowest slot, else the next design; None for a proposal.

    Args:
        latest: The last attempt of every slot.
        designs: What was queued, in order: params, origin and attributes.
        space: The space of the parameters.
    """
    for _, trial in sorted(latest.items()):
        if trial.state == TrialState.FAIL:
            return _retry(trial)
    known = {trial.user_attrs["candidate"] for trial in latest.values()}
    begun = max((t.user_attrs.get("design", -1) for t in latest.values()), default=-1) + 1
    for index, design in enumerate(designs[begun:], start=begun):
        candidate = space.from_params(design["params"])
        if candidate.to_json() not in known:
            attributes = trial_attributes(
                slot=max(latest, default=-1) + 1,
                candidate=candidate,
                origin=design["origin"],
                attributes=design["attributes"],
            )
            return Given(params=design["params"], attributes=attributes | {"design": index})
    return None


def _retry(trial: FrozenTrial) -> Given:
    """Give a failed trial its place again.

    Versions up to 0.1 queued retries and designs; one that was still waiting
    has never begun, and has its parameters elsewhere.
    """
    kept = {key: trial.user_attrs[key] for key in IDENTITY if key in trial.user_attrs}
    counts = trial.datetime_start is not None and RELEASED not in trial.user_attrs
    attempt = kept["attempt"] + counts
    params = trial.system_attrs.get("fixed_params", trial.params)
    return Given(params=params, attributes=kept | {"attempt": attempt})
