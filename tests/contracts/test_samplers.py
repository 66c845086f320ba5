"""What every sampler must do in any study: Optuna's own suite, and ours."""

import pickle
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from autocompress.controller.sampler import SAMPLER_NAMES, make_sampler

OURS = ("joint", "haq")
"""Those that we wrote; Optuna tests its own."""


EACH = [pytest.param(n, marks=pytest.mark.slow if n == "gp" else ()) for n in SAMPLER_NAMES]


def made(name: str, seed: int = 0) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make_sampler(name, seed, 0)


class Subject:
    @pytest.fixture(params=OURS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return partial(made, request.param)


class TestOptunaBasics(Subject, BasicSamplerTestCase):
    pass


class TestOptunaRelative(Subject, RelativeSamplerTestCase):
    pass


class TestOptunaMultiObjective(Subject, MultiObjectiveSamplerTestCase):
    pass


def suggest(trial: optuna.Trial) -> list[float]:
    numbers = [trial.suggest_int(f"n{number}", 0, 3) for number in range(4)]
    return [*numbers, trial.suggest_float("x", 1e-3, 1.0, log=True)]


def run(study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        *numbers, x = suggest(trial)
        study.tell(trial, [sum(numbers) + x, sum((n - 3) ** 2 for n in numbers) - x])


@pytest.mark.parametrize("name", EACH)
def test_an_integer_seed_decides_all(name: str) -> None:
    studies = [
        optuna.create_study(directions=["minimize"] * 2, sampler=made(name, seed))
        for seed in (0, 0, 1)
    ]
    for study in studies:
        run(study, 14)
    first, same, other = ([trial.params for trial in study.trials] for study in studies)
    assert first == same
    assert first != other


@pytest.mark.parametrize("name", OURS)
def test_a_copy_goes_on_as_the_original_does(name: str) -> None:
    sampler = made(name)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    run(study, 13)
    copied = pickle.loads(pickle.dumps(sampler))
    again = optuna.create_study(directions=["minimize"] * 2, sampler=copied)
    again.add_trials(study.trials)
    run(study, 1)
    run(again, 1)
    assert study.trials[-1].params == again.trials[-1].params


@pytest.mark.parametrize("name", OURS)
def test_a_trial_that_failed_changes_nothing_once_it_is_repeated(name: str) -> None:
    smooth, broken = (
        optuna.create_study(directions=["minimize"] * 2, sampler=made(name)) for _ in range(2)
    )
    run(smooth, 14)
    run(broken, 12)
    trial = broken.ask()
    suggest(trial)
    broken.tell(trial, state=TrialState.FAIL)
    broken.enqueue_trial(trial.params)
    run(broken, 2)
    assert [t.params for t in broken.trials if t.state == TrialState.COMPLETE] == [
        t.params for t in smooth.trials
    ]


@pytest.mark.parametrize("name", OURS)
def test_values_of_other_studies_are_learned_from(name: str) -> None:
    study = optuna.create_study(directions=["minimize"] * 2, sampler=made(name))
    run(study, 12)
    again = optuna.create_study(directions=["minimize"] * 2, sampler=made(name))
    again.add_trials(study.trials)
    rows = [tuple(trial.params.values()) for trial in again.trials]
    run(again, 6)
    fresh = [tuple(trial.params.values()) for trial in again.trials[len(rows) :]]
    assert len({*rows, *fresh}) == len(rows) + 6
    assert np.isfinite([trial.values for trial in again.trials]).all()
