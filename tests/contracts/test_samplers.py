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
from optuna.trial import TrialState, create_trial

from autocompress.controller.joint import JointSampler
from autocompress.controller.sampler import SAMPLER_NAMES, make_sampler

Make = Callable[[], BaseSampler]


def made(name: str) -> BaseSampler:
    if name == "joint":
        return JointSampler(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make_sampler(name, 0, 0)


ALL = ("joint", *SAMPLER_NAMES)


class Subject:
    @pytest.fixture(params=["haq"])
    def sampler(self, request: pytest.FixtureRequest) -> Make:
        return partial(made, request.param)


class TestOptunaBasics(Subject, BasicSamplerTestCase):
    pass


class TestOptunaRelative(Subject, RelativeSamplerTestCase):
    pass


class TestOptunaMultiObjective(Subject, MultiObjectiveSamplerTestCase):
    pass
