"""A study as samplers see it: every trial at what it is predicted at now."""

import copy
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autocompress.controller.records import fidelity_key
from autocompress.controller.ticket import trial_attributes
from autocompress.core.evaluation import Evaluation
from autocompress.space.bound import BoundSpace

EARLIER = "earlier study"
"""Origin of trials that this study has not made."""

_CONSTRAINT = "constraints:"
"""Prefix under which Optuna keeps a trial's constraints."""


_LONG_AGO = datetime(2000, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a trial is worth by the predictions of the moment.

    Attributes:
        losses: One number per objective, minimised.
        violations: Constraint name to violation; feasible at 0 or below.
    """

    losses: Sequence[float]
    violations: Mapping[str, float]


class CurrentStudy(Study):
    """Another study, whose completed trials show how they are judged now.

    Optuna keeps the values that a trial was told with. Ours are predictions,
    which change whenever a fine-tune or a measurement teaches something.
    Trials of earlier studies may join; they have numbers below 0.

    Attributes:
        judge: Judges a completed trial; None leaves all as they were told.
    """

    def __init__(self, study: Study) -> None:
        """Look at a study; nothing in it changes."""
        super().__init__(study.study_name, study._storage, study.sampler)
        self.judge: Callable[[FrozenTrial], Judgement] | None = None
        self._earlier: tuple[FrozenTrial, ...] = ()
        self._judged: dict[int, FrozenTrial] = {}

    @property
    def has_joined(self) -> bool:
        """Whether trials of earlier studies have."""
        return bool(self._earlier)

    def join(self, trials: Iterable[FrozenTrial]) -> None:
        """Add completed trials of earlier studies, as `earlier_trials` makes them."""
        self._earlier = tuple(trials)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        found = super()._get_trials(False, states)
        if states is None or TrialState.COMPLETE in states:
            found = [*found, *self._earlier]
        if (judge := self.judge) is not None:
            found = [self._now(judge, t) if t.state == TrialState.COMPLETE else t for t in found]
        return copy.deepcopy(found) if deepcopy else found

    def _now(self, judge: Callable[[FrozenTrial], Judgement], trial: FrozenTrial) -> FrozenTrial:
        found = judge(trial)
        losses, violations = list(found.losses), dict(found.violations)
        known = self._judged.get(trial.number)
        if known is None or known.values != losses or known.constraints != violations:
            known = self._judged[trial.number] = copy.copy(trial)
            known.values = losses
            known.system_attrs = {
                key: value
                for key, value in trial.system_attrs.items()
                if not key.startswith(_CONSTRAINT)
            }
            for name, violation in violations.items():
                known.set_constraint(name, violation)
        return known


def by_number(judge: Callable[[FrozenTrial], Judgement]) -> Callable[[FrozenTrial], Judgement]:
    """Remember the judgement of each trial, for as long as nothing is learned."""
    known: dict[int, Judgement] = {}

    def remembered(trial: FrozenTrial) -> Judgement:
        if trial.number not in known:
            known[trial.number] = judge(trial)
        return known[trial.number]

    return remembered


def earlier_trials(
    evaluations: Iterable[Evaluation],
    space: BoundSpace,
    distributions: Mapping[str, BaseDistribution],
    objectives: int,
) -> list[FrozenTrial]:
    """Make completed trials of what earlier studies found; their values wait for a judge.

    Args:
        evaluations: What they found, of candidates of the space; slots below 0.
        space: The space.
        distributions: Of its parameters.
        objectives: How many there are.
    """
    trials = []
    for evaluation in evaluations:
        attributes = trial_attributes(
            slot=evaluation.slot, candidate=evaluation.candidate, origin=EARLIER
        )
        found = {fidelity_key(n): r.to_json() for n, r in evaluation.fidelities.items()}
        trial = create_trial(
            values=[0.0] * objectives,
            params=dict(space.to_params(evaluation.candidate)),
            distributions=dict(distributions),
            user_attrs=attributes | found,
        )
        trial.number = evaluation.slot
        trial.datetime_start = trial.datetime_complete = _LONG_AGO
        trials.append(trial)
    return trials
