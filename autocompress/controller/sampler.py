"""Samplers that propose candidates, one fresh and seeded for every trial slot."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial

from autocompress.controller.current import Judgement
from autocompress.controller.given import Given
from autocompress.controller.haq import HaqSampler
from autocompress.controller.joint import JointSampler
from autocompress.controller.ticket import trial_attributes
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.schema import unknown_name
from autocompress.core.seeds import derive_seed
from autocompress.errors import InvalidInputError
from autocompress.space.bound import BoundSpace

SAMPLER_NAMES = ("joint", "tpe", "random", "nsga2", "gp", "haq")
"""Names of the samplers."""

STARTUP_TRIALS = 10
"""Finished trials before TPE models them; designs count among them."""

REPROPOSALS = 8
"""Mutations tried when a proposal was evaluated before."""

OFFSPRING = 60
"""Mutations of parents tried where a proposal is not worth a trial."""

_POPULATION = 20


def _any(_: Candidate) -> bool:
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """What a proposal goes by besides the study; costs are known before a trial is spent.

    Attributes:
        affordable: Tells whether a candidate is worth a trial.
        parents: Evaluated candidates that are; one is mutated where a
            sampler's own proposal is not.
        judge: Says what a finished trial is worth now; None for what it was
            told with.
        earlier: What earlier studies of the same model found; it needs a judge.
    """

    affordable: Callable[[Candidate], bool] = _any
    parents: tuple[Candidate, ...] = ()
    judge: Callable[[Evaluation], Judgement] | None = None
    earlier: tuple[Evaluation, ...] = ()


def make_sampler(name: str, seed: int, slot: int) -> BaseSampler:
    """Make the sampler of one trial slot.

    Every slot has a sampler of its own, seeded by the slot, so that a resumed
    study proposes what an undisturbed one would have. Samplers keep no state
    between trials: all they learn from is in the study.

    Args:
        name: "joint" (ours; what is known of the problem is given to it
            elsewhere), "tpe" (multivariate, Bergstra et al. 2011; Falkner et al. 2018),
            "random" (stratified draws), "nsga2" (Deb et al. 2002), "gp"
            (logEHVI, Ament et al. 2023) or "haq" (the agent of Wang et al.
            2019; it learns anew from all trials at each slot).
        seed: The seed of the run.
        slot: The trial slot, >= 0.

    Raises:
        InvalidInputError: If there is no sampler of that name.
    """
    own = derive_seed(seed, slot, "sampler")
    if name == "tpe":
        return TPESampler(
            multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS, seed=own
        )
    if name == "random":
        return RandomSampler(seed=own)
    if name == "nsga2":
        return NSGAIISampler(population_size=_POPULATION, seed=own)
    if name == "gp":
        return GPSampler(seed=own, n_startup_trials=STARTUP_TRIALS)
    lasting = derive_seed(seed, -1, "sampler")  # they count the trials themselves
    if name == "joint":
        return JointSampler(seed=lasting)
    if name == "haq":
        return HaqSampler(seed=lasting)
    raise InvalidInputError(unknown_name("sampler", name, SAMPLER_NAMES))


def distributions(space: BoundSpace) -> dict[str, BaseDistribution]:
    """Return the Optuna distribution of every parameter of a space."""
    return {
        parameter.name: (
            IntDistribution(int(parameter.low), int(parameter.high))
            if parameter.kind == "int"
            else FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        )
        for parameter in space.parameters
    }


class Proposer:
    """Ask a sampler for one trial, but stay in the space and off the beaten track.

    Where the sampler has nothing to go by yet, the space draws a stratified
    sample. A proposal whose candidate is known is mutated; one that is not
    affordable gives way to a mutation of a good candidate.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: BoundSpace,
        *,
        seed: int,
        slot: int,
        known: Collection[str],
        view: Study,
        guide: Guide | None = None,
    ) -> None:
        """Prepare for one trial.

        Args:
            sampler: The sampler that proposes.
            space: The space it proposes in.
            seed: The seed of the run.
            slot: The trial slot.
            known: Candidates that need no second evaluation, as JSON.
            view: The study that the sampler is shown.
            guide: What is worth a trial; everything by default.
        """
        self._sampler = sampler
        self._space = space
        self._seed = seed
        self._slot = slot
        self._known = known
        self._view = view
        self._guide = guide or Guide()

    def prepare(self, trial: FrozenTrial) -> None:
        """Tell the sampler of a trial, whether or not its parameters are given."""
        self._sampler.before_trial(self._view, trial)
        if isinstance(self._sampler, BaseGASampler):
            # A generation counts only trials that were assigned to it, designs
            # too; Optuna does not ask for proposals where all is given.
            self._sampler.get_trial_generation(self._view, trial)

    def propose(self, trial: FrozenTrial) -> Given:
        """Propose a value for every parameter of a trial that was told of."""
        space = distributions(self._space)
        params = self._sampler.sample_relative(self._view, trial, space)
        if params:
            params |= {
                name: self._sampler.sample_independent(self._view, trial, name, distribution)
                for name, distribution in space.items()
                if name not in params
            }
            candidate = self._space.from_params(params)
            origin = type(self._sampler).__name__.removesuffix("Sampler").lower()
        else:
            origin = "stratified"
            candidate = self._space.sample(derive_seed(self._seed, self._slot, "sample"))
            params = self._space.to_params(candidate)
        fresh = self._fresh(candidate)
        offspring = None if self._guide.affordable(fresh) else self._offspring()
        if offspring is not None:
            return self._given(self._space.to_params(offspring), "offspring")
        if fresh == candidate:
            return self._given(params, origin)
        return self._given(self._space.to_params(fresh), f"{origin} mutated")

    def _given(self, params: Mapping[str, float], origin: str) -> Given:
        candidate = self._space.from_params(params)
        attributes = trial_attributes(slot=self._slot, candidate=candidate, origin=origin)
        return Given(params=params, attributes=attributes)

    def _offspring(self) -> Candidate | None:
        """Mutate parents, a few parameters at a time, until one is new and affordable."""
        if not self._guide.parents:
            return None
        rng = np.random.default_rng(derive_seed(self._seed, self._slot, "parents"))
        for attempt in range(OFFSPRING):
            parent = self._guide.parents[int(rng.integers(len(self._guide.parents)))]
            own = derive_seed(self._seed, self._slot, f"offspring {attempt}")
            rate = min(1.0, float(rng.integers(1, 6)) / len(self._space.parameters))
            child = self._space.mutate(parent, own, rate)
            if child.to_json() not in self._known and self._guide.affordable(child):
                return child
        return None

    def _fresh(self, candidate: Candidate) -> Candidate:
        """Mutate a known candidate, further each time, until it is new."""
        near = candidate
        for attempt in range(REPROPOSALS):
            if near.to_json() not in self._known:
                break
            own = derive_seed(self._seed, self._slot, f"mutate {attempt}")
            near = self._space.mutate(candidate, own, rate=(attempt + 1) / (2 * REPROPOSALS))
        return near
