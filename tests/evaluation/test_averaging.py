import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.evaluation.averaging import WeightAverage, copy_weights, set_weights
from autocompress.graph.tracing import trace
from seasoned import compressed, seasoned, uniform


def test_the_average_follows_the_weights_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = WeightAverage(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    with torch.no_grad():
        for step in range(1, 8):
            model[0].weight.normal_()
            model[1].running_mean.fill_(step)
            model[1].num_batches_tracked.fill_(step)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * model[0].weight
            average.update(model)
    torch.testing.assert_close(average.model[0].weight, expected)
    assert 5.0 < float(average.model[1].running_mean[0]) < 7.0
    assert int(average.model[1].num_batches_tracked) == 7
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())


def test_copies_are_put_back_in_place() -> None:
    model = nn.BatchNorm1d(3)
    kept, parameter = copy_weights(model), model.weight
    with torch.no_grad():
        model.weight.fill_(7.0)
        model.running_var.fill_(3.0)
    assert float(kept["weight"][0]) == 1.0
    set_weights(model, kept)
    assert model.weight is parameter
    assert float(model.weight[0].detach()) == 1.0
    assert float(model.running_var[0]) == pytest.approx(1.0)


def test_the_average_rounds_with_its_own_steps() -> None:
    model, inputs = seasoned("Mlp")
    student = compressed(model, inputs, Candidate(layers=uniform(trace(model, inputs), 4, 4)))
    student.learn_steps()
    average = WeightAverage(student, decay=0.5)
    with torch.no_grad():
        for step in student.steps.values():
            step.mul_(2.0)
    average.update(student)
    for site, quantiser in average.model.sites():
        if site.bits < 8:
            step = average.model.steps[f"tensor:{site.points[0]}:{site.bits}"]
            assert quantiser.scale == pytest.approx(float(step))
