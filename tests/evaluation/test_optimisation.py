import math

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.recipe import Recipe
from autocompress.evaluation.optimisation import (
    make_optimiser,
    optimiser_tensors,
    rate_factor,
    restore_optimiser,
    set_rate,
)
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import SurgeryRecord


def _student() -> CompressedModel:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return CompressedModel(network, SurgeryRecord(candidate=Candidate()))


def test_the_rate_rises_and_falls_or_only_falls() -> None:
    cycle, cosine = Recipe(warm_up=0.2), Recipe(curve="cosine")
    assert rate_factor(cycle, 0.0) == pytest.approx(0.1)
    assert rate_factor(cycle, 0.1) == pytest.approx(0.55)
    assert rate_factor(cycle, 0.6) == pytest.approx(0.5)
    for progress in (0.0, 0.3, 1.0):
        expected = 0.5 * (1 + math.cos(math.pi * progress))
        assert rate_factor(cosine, progress) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_of_layers_decay_and_a_teacher_learns_slowly(name: str) -> None:
    student, teacher = _student(), nn.Linear(2, 2)
    recipe = Recipe(optimiser=name, weight_decay=0.1, learning_rate=0.5)
    optimiser = make_optimiser(student, recipe, nn.Linear(5, 5, bias=False), teacher)
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    assert decays == [0.1, 0.0, 0.1, 0.1]
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 4, 1, 2]
    set_rate(optimiser, recipe, recipe.warm_up)
    rates = [group["lr"] for group in optimiser.param_groups]
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimiser_goes_on_as_another_would_have(name: str) -> None:
    states = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        student = _student()
        optimiser = make_optimiser(student, Recipe(optimiser=name), nn.ModuleDict(), None)
        for step in range(6):
            if interrupted and step == 3:
                tensors = optimiser_tensors(optimiser)
                optimiser = make_optimiser(student, Recipe(optimiser=name), nn.ModuleDict(), None)
                restore_optimiser(optimiser, {k: t.clone() for k, t in tensors.items()})
            optimiser.zero_grad()
            torch.autograd.backward(student(torch.randn(8, 3)).square().sum())
            optimiser.step()
        states.append(student.network.state_dict())
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
