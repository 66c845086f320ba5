from collections.abc import Callable
from typing import Any

import pytest
import torch

from autocompress.controller.preflight import (
    check_model,
    estimate_seconds,
    report_on,
    seconds_per_image,
)
from autocompress.core.budget import Budget
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError
from autocompress.evaluation.task import Task
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.tracing import trace
from autocompress.space.preset import SearchSpace
from blobs import make_task, trained_model
from toy_graphs import residual_graph
from zoo import PlainNet

SPACE = SearchSpace.load({"pruning": {"ratios": [0, 0.5], "exclude": ["blocks.2.*"]}})


def test_savings_are_counted_by_hand() -> None:
    graph = trace(PlainNet(), torch.zeros(2, 3, 16, 16))
    report = report_on(graph, SearchSpace.load({"pruning": {"ratios": [0.5], "round_to": 1}}))
    first = next(saving for saving in report.savings if saving.name == "conv1")
    assert first.pruning_ratio == 0.5
    assert first.macs == 256 * 4 * 27 + 64 * 16 * 4 * 9
    # four filters of conv1 with their scales, four inputs of conv2, four channels of bn1
    assert first.size_bytes == 4 * 27 + 4 * 4 + 16 * 4 * 9 + 4 * 4 * 4
    assert report.macs == sum(layer.macs for layer in graph.layers)
    assert report.groups == graph.groups
    assert report.group("conv1").prunable


def test_only_what_the_space_varies_is_listed() -> None:
    report = report_on(residual_graph(3, 32), SPACE)
    named = [(saving.kind, saving.name) for saving in report.savings]
    assert named == [
        ("group", "blocks.0.conv1"),
        ("group", "blocks.1.conv1"),
        ("block", "blocks.1"),
        ("block", "blocks.2"),
    ]
    block = report.savings[-1]
    assert block.macs == 2 * 9 * 32 * 32 * 64
    weights = 2 * (9 * 32 * 32 + 4 * 32)  # a byte each, and scales
    assert block.size_bytes == pytest.approx(weights, rel=0.03)  # and what describes them
    assert report.search_seconds is None


def test_what_the_space_leaves_out_is_refused_for_that_reason() -> None:
    space = SearchSpace.load(
        {
            "pruning": {"ratios": [0.5], "include": ["blocks.*"], "exclude": ["blocks.2.*"]},
            "blocks": {"exclude": ["blocks.1"]},
            "quantisation": {"exclude": ["Conv2d"]},
        }
    )
    graph = residual_graph(3, 32)
    report = report_on(graph, space)
    assert report.group("blocks.0.conv1").prunable
    assert report.group("blocks.2.conv1").reason == "excluded by the space"
    assert not report.group("blocks.2.conv1").prunable
    assert not report.block("blocks.1").droppable
    assert report.block("blocks.2").droppable
    reasons = {layer.reason for layer in report.layers if layer.type == "Conv2d"}
    assert reasons == {"excluded by the space"}
    assert report.macs == report_on(graph, SearchSpace.load("cnn")).macs
    undropped = report_on(graph, SearchSpace.load({"blocks": {"drop": False}}))
    assert {block.reason for block in undropped.blocks if graph.block(block.name).droppable} == {
        "excluded by the space"
    }
    coarse = report_on(graph, SearchSpace.load({"pruning": {"ratios": [0.01]}}))
    reason = "no ratio of the space fits its channels"
    assert coarse.group("blocks.0.conv1").reason == reason


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x, y: [], "task 'val': expected at least one example, got an empty loader"),
        (lambda x, y: [(x, y), (x * torch.nan, y)], "task 'val': expected finite inputs"),
        (lambda x, y: [(x, y), (x[:, :1], y)], "task 'val': expected batches that the model"),
    ],
)
def test_a_check_tries_the_task_as_a_search_does(
    damage: Callable[[torch.Tensor, torch.Tensor], list[object]], message: str
) -> None:
    task = make_task()
    x, y = task.val[0]
    broken = Task(train=task.train, val=damage(x, y), test=task.test)
    with pytest.raises(InvalidInputError, match=message):
        check_model(trained_model(task), x, SearchSpace.load("mlp"), broken)


def test_the_estimate_grows_with_the_budget_and_ends_at_its_minutes() -> None:
    graph = residual_graph(3, 32)

    def estimate(budget: Budget, image_seconds: float = 0.001, **options: Any) -> float:
        return estimate_seconds(
            budget, graph, epoch_images=10_000, image_seconds=image_seconds, **options
        )

    few, many = estimate(Budget(trials=20)), estimate(Budget(trials=200))
    assert 0 < few < many
    assert estimate(Budget(trials=20), 0.002) > few
    # each trial more costs its proxy, and a third of a short fine-tune
    per_trial = 0.001 * (1.5 * (2 * 2000 + 1024) + 4.0 * 6000 / 3)
    assert (many - few) / 180 == pytest.approx(per_trial)
    longer = estimate(Budget(trials=20), training=TrainingConfig(full_epochs=9.0))
    assert longer - few == pytest.approx(0.001 * 4.0 * 6 * (9.0 - 4.0) * 10_000)
    assert estimate(Budget(minutes=3)) == 180.0
    assert estimate(Budget(trials=200, minutes=3)) == 180.0


def test_a_check_times_the_model_and_leaves_it_alone() -> None:
    task = make_task()
    model = trained_model(task).train()
    inputs = task.val[0][0]
    report = check_model(model, inputs, SearchSpace.load("mlp"), task, Budget(trials=10))
    assert model.training
    model.eval()
    assert report.search_seconds is not None
    assert report.search_seconds > 0
    expected = [model(x).argmax(1) == y for x, y in task.val]
    assert report.accuracy_images == sum(map(len, expected))
    assert report.accuracy == pytest.approx(float(torch.cat(expected).float().mean()), abs=0.02)
    assert check_model(model, inputs, SearchSpace.load("mlp")).search_seconds is None
    assert 0 < seconds_per_image(model.eval(), ModelInputs.of(inputs)) < 0.1
