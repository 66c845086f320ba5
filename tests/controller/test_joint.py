import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState

import autocompress as ac
from autocompress.controller.joint import LEAST_GROWTH, ROUND, STARTUP
from autocompress.core.pareto import hypervolume
from autocompress.errors import InvalidInputError, WrongTypeError

VARIABLES = 10
WEIGHTS = np.linspace(0.2, 2.0, VARIABLES)
SPACE: dict[str, BaseDistribution] = {f"x{n}": IntDistribution(0, 3) for n in range(VARIABLES)}
REFERENCE = (0.0, 30.0)


def accuracy(levels: np.ndarray) -> float:
    return float(1.0 - levels**2 @ WEIGHTS / 60.0)


def cost(params: Mapping[str, Any]) -> float:
    return 31.0 - sum(params[name] for name in SPACE)


def run(study: optuna.Study, trials: int, limit: float | None = None) -> None:
    for _ in range(trials):
        trial = study.ask()
        levels = np.array([trial.suggest_int(name, 0, 3) for name in SPACE], dtype=np.float64)
        if limit is not None:
            trial.set_constraint("cost", cost(trial.params) - limit)
        study.tell(trial, [accuracy(levels), cost(trial.params)])


def new_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def volume(study: optuna.Study) -> float:
    losses = np.array([trial.values for trial in study.trials]) * (-1.0, 1.0)
    return hypervolume(losses, np.array(REFERENCE) * (-1.0, 1.0))


def test_exact_costs_beat_tpe_with_half_of_the_trials() -> None:
    ours = new_study(ac.JointSampler(cost_fns={1: cost}, reference=REFERENCE, seed=0))
    run(ours, 25)
    tpe = new_study(optuna.samplers.TPESampler(multivariate=True, seed=0))
    run(tpe, 50)
    assert volume(ours) > volume(tpe)


def test_each_fit_is_published_in_the_study() -> None:
    sampler = ac.JointSampler(cost_fns={1: cost}, seed=0)
    study = new_study(sampler)
    run(study, STARTUP + 3)
    assert list(sampler.rounds) == [STARTUP, STARTUP + LEAST_GROWTH]
    kept = study._storage.get_study_system_attrs(study._study_id)
    for trials, found in sampler.rounds.items():
        record = kept[f"{ROUND}:{trials}"]
        assert record["trials"] == trials
        assert record["trusted"] == found.trusted
        assert list(found.rank_correlations) == [0]


def test_constraints_are_kept_before_a_trial_is_spent() -> None:
    study = new_study(
        ac.JointSampler(
            cost_fns={1: cost},
            constraint_fns={"cost": lambda params: cost(params) - 12.0},
            space=SPACE,
            seed=0,
        )
    )
    run(study, 20, limit=12.0)
    assert all(trial.values[1] <= 12.0 for trial in study.trials)


@pytest.mark.slow
def test_constraints_that_only_trials_reveal_are_learned() -> None:
    study = new_study(ac.JointSampler(cost_fns={1: cost}, space=SPACE, seed=0))
    run(study, 45, limit=16.0)
    within = [trial.values[1] <= 16.0 for trial in study.trials]
    assert np.mean(within[-15:]) > max(0.7, np.mean(within[:15]))


def test_parameters_without_an_effect_do_not_make_another_candidate() -> None:
    """Every trial suggests all; 'active' says that x1 and up are void where x0 is 3."""

    def active(params: Mapping[str, Any]) -> list[str]:
        return ["x0"] if params["x0"] == 3 else list(SPACE)

    sampler = ac.JointSampler(space=SPACE, active=active, seed=0)
    study = new_study(sampler)
    run(study, 25)
    void = [trial for trial in study.trials if trial.params["x0"] == 3]
    assert len(void) <= 1


def test_functions_are_left_out_of_conditional_studies_with_one_warning() -> None:
    study = new_study(ac.JointSampler(cost_fns={1: lambda params: 1.0}, seed=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(16):
            trial = study.ask()
            x = trial.suggest_int("x", 0, 9)
            y = trial.suggest_int("y", 0, 9) if x > 4 else 0
            study.tell(trial, [x + y, float(number)])
    messages = [str(w.message) for w in caught if "give the sampler 'space'" in str(w.message)]
    assert len(messages) == 1


def test_one_objective_with_reals_and_choices_works() -> None:
    study = optuna.create_study(sampler=ac.JointSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -1.0, 1.0)
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        kind = trial.suggest_categorical("kind", ["bad", "good", None])
        return x**2 + abs(np.log10(rate) + 2.0) + (0.0 if kind == "good" else 1.0)

    study.optimize(objective, n_trials=40)
    assert study.best_value < 0.15
    assert study.best_params["kind"] == "good"


def test_fixed_numbers_and_reals_are_no_trouble_and_nothing_is_tried_twice() -> None:
    rng = np.random.default_rng(1)
    study = optuna.create_study(sampler=ac.JointSampler(seed=0))
    seen = set()
    for _ in range(32):
        trial = study.ask()
        rates = [trial.suggest_float(f"rate{i}", 1e-4, 1.0, log=True) for i in range(2)]
        few = [trial.suggest_int(f"count{i}", 0, 2) for i in range(2)]
        assert trial.suggest_float("fixed", 2.0, 2.0) == 2.0
        seen.add((*np.round(rates, 9), *few))
        study.tell(trial, float(rng.random()))  # noise, so that TPE takes turns
    assert len(seen) == 32


def test_running_trials_count() -> None:
    study = new_study(ac.JointSampler(cost_fns={1: cost}, seed=0))
    run(study, 15)
    asked = [study.ask(SPACE) for _ in range(5)]
    assert len({tuple(trial.params.values()) for trial in asked}) == 5


def test_a_trial_that_failed_is_not_proposed_again() -> None:
    study = new_study(ac.JointSampler(cost_fns={1: cost}, seed=0))
    run(study, 15)
    failed = []
    for _ in range(4):
        trial = study.ask(SPACE)
        failed.append(tuple(trial.params.values()))
        study.tell(trial, state=TrialState.FAIL)
    assert len(set(failed)) == 4


def test_noise_falls_back_to_tpe_and_mutations() -> None:
    rng = np.random.default_rng(0)
    sampler = ac.JointSampler(cost_fns={1: cost}, seed=0)
    study = new_study(sampler)
    for _ in range(26):
        trial = study.ask(SPACE)
        study.tell(trial, [float(rng.random()), cost(trial.params)])
    assert not sampler.rounds[max(sampler.rounds)].trusted
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 26


@pytest.mark.parametrize(
    "wrong", [{"cost_fns": {2: cost}}, {"cost_fns": {-1: cost}}, {"reference": (1.0,)}]
)
def test_what_does_not_fit_the_study_is_refused(wrong: dict[str, Any]) -> None:
    study = new_study(ac.JointSampler(space=SPACE, **wrong))
    with pytest.raises(InvalidInputError):
        study.ask(SPACE)


@pytest.mark.bench
@pytest.mark.parametrize(("trials", "seconds"), [(100, 0.25), (2000, 1.0)])
def test_asking_is_quick(trials: int, seconds: float) -> None:
    space = {f"x{n}": IntDistribution(0, 3) for n in range(VARIABLES)}
    rng = np.random.default_rng(0)
    study = new_study(ac.JointSampler(cost_fns={1: cost}, seed=0))
    for row in rng.integers(0, 4, (trials, VARIABLES)):
        params = dict(zip(space, row.tolist(), strict=True))
        study.add_trial(
            optuna.trial.create_trial(
                values=[accuracy(row), cost(params)], params=params, distributions=space
            )
        )
    run(study, 1)
    begun = time.perf_counter()
    run(study, 10)
    assert (time.perf_counter() - begun) / 10 < seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost_fns": {"flops": len}}, "'cost_fns', key: expected an int, got 'flops'"),
        ({"cost_fns": len}, "'cost_fns': expected functions by their keys"),
        ({"cost_fns": {1: 3}}, "'cost_fns', 1: expected a function of the parameters, got 3"),
        ({"constraint_fns": {"size": 3}}, "'constraint_fns', 'size': expected a function"),
        ({"features": [0.1]}, "'features': expected a function"),
        ({"active": "all"}, "'active': expected a function"),
        ({"seed": "a"}, "'seed': expected an int"),
        ({"reference": 5}, "'reference': expected one number per objective, got 5"),
        ({"reference": [1.0, "x"]}, "'reference': expected one number per objective"),
        ({"reference": [1.0, float("nan")]}, "'reference': expected one number per objective"),
        ({"nearer": [1.0, 2.0]}, "'nearer': expected one number per objective, got 1.0"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidInputError, WrongTypeError), match=message):
        ac.JointSampler(**options)
