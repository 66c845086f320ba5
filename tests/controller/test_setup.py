"""What makes two searches the same study."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from autocompress.controller.setup import SearchSetup, study_identity
from autocompress.core.budget import Budget
from autocompress.core.objective import parse_objectives
from autocompress.core.target import Target
from autocompress.evaluation.splits import make_splits
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from autocompress.space.preset import SearchSpace


@pytest.fixture(scope="module")
def setup() -> SearchSetup:
    batches = [(torch.randn(4, 12), torch.tensor([0, 1, 2, 3]))]
    task = Task(train=batches, val=batches, test=batches)
    model = zoo.Mlp()
    graph = trace(model, batches[0][0])
    return SearchSetup(
        model=model,
        graph=graph,
        space=SearchSpace.load("mlp").bind_graph(graph),
        task=task,
        splits=make_splits(task, seed=0),
        target=Target.named("onnxruntime-cpu"),
        profile=None,
        objectives=parse_objectives(["accuracy", "latency_ms"]),
        constraints=(),
        budget=Budget(trials=1),
        study_dir=Path("unused"),
        epoch_images=4,
    )


def test_model_weights_space_data_and_target_are_what_a_study_belongs_to(
    setup: SearchSetup,
) -> None:
    before = study_identity(setup, "w")
    assert study_identity(setup, "w") == before
    assert study_identity(setup, "other")["weights"] != before["weights"]
    others = {
        "target": replace(setup, target=Target.named("onnxruntime-cpu", threads=2)),
        "data": replace(
            setup,
            splits=replace(setup.splits, val=((torch.zeros(4, 12), torch.tensor([0, 1, 2, 3])),)),
        ),
        "space": replace(
            setup,
            space=SearchSpace.load({"quantisation": {"weight_bits": [4]}}).bind_graph(setup.graph),
        ),
        "model": replace(setup, graph=trace(zoo.Mlp(hidden=8), torch.zeros(2, 12))),
    }
    for key, other in others.items():
        found = study_identity(other, "w")
        assert found[key] != before[key], key


def test_budget_and_seed_may_change_when_a_study_goes_on(setup: SearchSetup) -> None:
    longer = replace(setup, budget=Budget(trials=9), seed=5)
    assert study_identity(longer, "w") == study_identity(setup, "w")
