"""A sampler that learns what trials reveal and computes what they need not."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import (
    Activity,
    History,
    Landscape,
    RowFunction,
    active_parameters,
)
from autocompress.controller.memory import PROPOSAL, Memory
from autocompress.controller.proposals import Model, Round, drawn, mutated, unseen
from autocompress.core.seeds import derive_seed
from autocompress.errors import InvalidInputError, WrongTypeError, check_type, explain

FloatArray = NDArray[np.float64]

STARTUP = 10
"""Completed trials before predictors are fitted."""

GROWTH, LEAST_GROWTH = 0.1, 2
"""Growth of the history, as a fraction and in trials, after which they are fitted again."""

ROUND = "joint:round"
"""Prefix of the study's system attributes that hold what each fit showed."""

_log = logging.getLogger(__name__)


class JointSampler(BaseSampler):
    """Propose trials where predicted accuracy and exact costs promise most hypervolume.

    Objectives named in `cost_fns` are computed; the others are learned by
    `AccuracyPredictor`. A search by NSGA-II on optimistic predictions and
    exact costs finds a pool of candidates, of which each trial takes the one
    that adds most hypervolume to what is known; running trials count with
    their predictions (after Lu et al. 2020, "MSuNAS"). Where the predictor
    does not rank left-out trials, multivariate TPE and mutations of the front
    take turns. Works in any study: one objective or more, minimised or
    maximised, with whole, real and categorical parameters and constraints
    (`trial.set_constraint`). Proposals depend on the seed and the study only.

    Attributes:
        rounds: What each fit showed, by completed trials; the study has it too,
            in its system attributes "joint:round:<trials>".
    """

    def __init__(
        self,
        cost_fns: Mapping[int, RowFunction] | None = None,
        features: RowFunction | None = None,
        space: Mapping[str, BaseDistribution] | None = None,
        active: Activity | None = None,
        seed: int = 0,
        *,
        constraint_fns: Mapping[str, RowFunction] | None = None,
        reference: Sequence[float] | None = None,
        nearer: Sequence[Sequence[float]] = (),
    ) -> None:
        """Prepare a sampler.

        Functions of parameters get a dictionary as `trial.params` would be.
        With an attribute `batched` that is true they get an `n x d` table
        instead, one column per parameter in the order of `space`, or else in
        the order of their suggestion, and return `n` values; a categorical
        parameter is the index of its choice, an inactive one NaN. `active` then
        returns `n x d` booleans.

        Args:
            cost_fns: By the number of an objective, a function that computes
                it from the parameters.
            features: Computes extra inputs of the predictor: a 1-d array, in
                one unit as far as magnitudes are alike, such as sensitivities.
            space: Distributions of all parameters. Found in the study's
                trials if not given.
            active: For a conditional space, returns the names of those
                parameters that a trial with given values would suggest, or
                that have an effect where every trial suggests all.
            seed: Decides the proposals together with the study.
            constraint_fns: By the key of a constraint, a function that
                computes it; feasible at most 0. Candidates are repaired to
                satisfy these before a trial is spent.
            reference: One value per objective, beyond which nothing counts as
                an improvement. Taken from the first trials if not given.
            nearer: Further such points that trials take turns with, so that
                proposals spread over parts of the front that `reference`
                gives little weight.
        """
        for what, function in (("'features'", features), ("'active'", active)):
            if function is not None:
                _check_callable(what, function)
        self._cost_fns, self._features = _functions("'cost_fns'", cost_fns, int), features
        self._space, self._activity = space, active
        self._seed = check_type("'seed'", seed, int)
        self._constraint_fns = _functions("'constraint_fns'", constraint_fns, str)
        self._reference = None if reference is None else _point("'reference'", reference)
        self._nearer = [_point("'nearer'", point) for point in nearer]
        self.rounds: dict[int, Round] = {}
        self._memories: WeakKeyDictionary[Study, Memory] = WeakKeyDictionary()
        self._models: WeakKeyDictionary[Study, Model] = WeakKeyDictionary()
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is derived from studies, so that samplers can be copied and pickled."""
        return self.__dict__ | {"_memories": None, "_models": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin again with empty memories."""
        empty: dict[str, Any] = {"_memories": WeakKeyDictionary(), "_models": WeakKeyDictionary()}
        self.__dict__.update(state | empty)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the given space, or all parameters whose distribution never changed."""
        if self._space is not None:
            return dict(self._space)
        return self._memory(study).space(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a value for every parameter of a space."""
        self._check(study)
        if self._space is not None:  # another sampler around this one may ask for more
            search_space = dict(self._space)
        if not search_space:
            return {}
        genes = Genes.of(search_space)
        memory = self._memory(study)
        history = memory.history(study, genes)
        if self._space is not None and self._activity is not None:
            history = history.masked(active_parameters(self._activity, genes, history.rows))
        functions = self._functions(bool(history.active.all()))
        signs, place = memory.signs(study), memory.place(study, trial)
        rng = np.random.default_rng(derive_seed(self._seed, place, "proposal"))
        pending = memory.pending(study, genes, trial)
        known = np.concatenate([history.rows[history.own], pending, memory.spent(study, genes)])
        if len(history) < STARTUP:
            landscape = Landscape(genes, history, signs=signs, **functions)
            row = drawn(landscape, known, rng)
        else:
            model = self._model(study, genes, history, signs, functions)
            if model.trusted:
                row = model.best(history, pending, known, place, rng)
            elif place % 2:
                row = mutated(model.landscape, history, known, rng)
            else:
                row = self._tpe(study, trial, genes, model.landscape, place)
                if np.isnan(row).any() or not unseen(row[None], known)[0]:
                    row = mutated(model.landscape, history, known, rng)
        proposal = dict(zip(search_space, row.tolist(), strict=True))
        study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, proposal)
        return genes.decode(row)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Leave a parameter that is not in the space to TPE."""
        place = self._memory(study).place(study, trial)
        own = derive_seed(self._seed, place, f"independent {param_name}")
        return TPESampler(seed=own).sample_independent(study, trial, param_name, param_distribution)

    def _memory(self, study: Study) -> Memory:
        return self._memories.setdefault(study, Memory())

    def _model(
        self,
        study: Study,
        genes: Genes,
        history: History,
        signs: FloatArray,
        functions: dict[str, Any],
    ) -> Model:
        """Return the model of a history; it is fitted anew when that has grown or changed."""
        fitted = history.first(_last_fit(len(history)))
        model = self._models.get(study)
        if model is None or not model.fits(genes, fitted):
            landscape = Landscape(genes, fitted, signs=signs, **functions)
            reference = None if self._reference is None else signs * self._reference
            nearer = [signs * point for point in self._nearer]
            first = history.first(STARTUP)
            model = Model(landscape, fitted, first, reference, self._seed, nearer)
            self._models[study] = model
            self._publish(study, model.round(signs))
        return model

    def _tpe(
        self, study: Study, trial: FrozenTrial, genes: Genes, landscape: Landscape, place: int
    ) -> FloatArray:
        """Ask multivariate TPE; NaN where its proposal is incomplete or cannot be feasible."""
        tpe = TPESampler(
            multivariate=True, constant_liar=True, seed=derive_seed(self._seed, place, "tpe")
        )
        kinds = genes.distributions.items()
        free = {name: kind for name, kind in kinds if not kind.single()}
        row = genes.encode(genes.single() | tpe.sample_relative(study, trial, free))
        if np.isnan(row).any():
            return row
        row = landscape.canonical(row[None])[0]
        return np.where(landscape.violations(row[None])[0] > 0.0, np.nan, row)

    def _functions(self, flat: bool) -> dict[str, Any]:
        """Return the caller's functions, those that can be used."""
        complete = flat or (self._space is not None and self._activity is not None)
        if not complete and (self._cost_fns or self._constraint_fns or self._features):
            if not self._warned:
                warnings.warn(
                    "functions of the parameters are not used for proposals, since trials have "
                    "different parameters; give the sampler 'space' and 'active'",
                    stacklevel=2,
                )
            self._warned = True
        return {
            "costs": self._cost_fns if complete else {},
            "constraints": self._constraint_fns if complete else {},
            "features": self._features if complete else None,
            "activity": self._activity if self._space is not None else None,
        }

    def _check(self, study: Study) -> None:
        """Refuse what does not fit the study's objectives."""
        count = len(study.directions)
        if any(not 0 <= number < count for number in self._cost_fns):
            raise InvalidInputError(
                explain(
                    "'cost_fns'",
                    expected=f"numbers of objectives, 0 to {count - 1}",
                    got=sorted(self._cost_fns),
                    remedy="use the order of the study's directions",
                )
            )
        given = [] if self._reference is None else [self._reference]
        for point in (*given, *self._nearer):
            if len(point) != count:
                raise InvalidInputError(
                    explain(
                        "'reference' and 'nearer'",
                        expected=f"{count} values",
                        got=len(point),
                        remedy="give one value per objective",
                    )
                )

    def _publish(self, study: Study, found: Round) -> None:
        """Say how far the predictions can be trusted: attribute, study and log."""
        self.rounds[found.trials] = found
        study._storage.set_study_system_attr(
            study._study_id, f"{ROUND}:{found.trials}", found.to_json()
        )
        _log.info(
            "after %d trials the predictor ranks left-out trials with tau %s%s",
            found.trials,
            ", ".join(f"{tau:.2f}" for tau in found.rank_correlations.values()) or "-",
            "" if found.trusted else "; TPE and mutations take turns",
        )


def _functions(
    what: str, given: Mapping[Any, RowFunction] | None, kind: type
) -> dict[Any, RowFunction]:
    """Copy functions by their keys, or refuse what is something else."""
    if given is not None and not isinstance(given, Mapping):
        raise WrongTypeError(
            explain(what, expected="functions by their keys", got=repr(given), remedy="pass a dict")
        )
    functions = dict(given or {})
    for key, function in functions.items():
        check_type(f"{what}, key", key, kind)
        _check_callable(f"{what}, {key!r}", function)
    return functions


def _check_callable(what: str, function: object) -> None:
    if not callable(function):
        raise WrongTypeError(
            explain(
                what,
                expected="a function of the parameters",
                got=repr(function),
                remedy="pass a function",
            )
        )


def _point(what: str, given: Sequence[float]) -> FloatArray:
    """Read one value per objective."""
    try:
        point = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        point = np.array(np.nan)
    if point.ndim != 1 or np.isnan(point).any():
        raise InvalidInputError(
            explain(
                what,
                expected="one number per objective",
                got=repr(given),
                remedy="give a list of numbers",
            )
        )
    return point


def _last_fit(trials: int) -> int:
    """Return the last number of trials, up to the present one, at which models are fitted."""
    fitted = STARTUP
    while (following := fitted + max(LEAST_GROWTH, int(GROWTH * fitted))) <= trials:
        fitted = following
    return fitted
