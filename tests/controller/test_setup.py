"""What makes two searches the same study."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from autocompress.controller.setup import SearchSetup, check_labels, study_identity
from autocompress.core.budget import Budget
from autocompress.core.objective import parse_objectives
from autocompress.core.simulation import Accelerator
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError
from autocompress.evaluation.splits import make_splits
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from autocompress.space.bound import BoundSpace
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
    taught, other = (study_identity(replace(setup, teachers=(zoo.Mlp(),)), "w") for _ in range(2))
    assert taught["teachers"] != other["teachers"]
    assert taught.items() > before.items()
    for key, other in others.items():
        found = study_identity(other, "w")
        assert found[key] != before[key], key


def test_simulated_hardware_is_known_by_what_it_consists_of(setup: SearchSetup) -> None:
    def identity(rows: int) -> dict[str, str]:
        npu = Target(name="npu", simulation=Accelerator(rows=rows))
        return study_identity(replace(setup, target=npu), "w")

    assert identity(8) == identity(8)
    assert identity(8) != identity(16)


def test_budget_and_seed_may_change_when_a_study_goes_on(setup: SearchSetup) -> None:
    longer = replace(setup, budget=Budget(trials=9), seed=5)
    assert study_identity(longer, "w") == study_identity(setup, "w")


def _asking(
    setup: SearchSetup, kd_weight: float, criterion: str
) -> tuple[BoundSpace, TrainingConfig]:
    """Return a space whose candidates learn and are cut as said."""
    asked = {
        "pruning": {"criteria": ["l1", criterion]},
        "distillation": {"kd_weight": {"low": kd_weight, "high": 1.0}},
    }
    return SearchSpace.load(asked).bind_graph(setup.graph), setup.training


def test_what_reads_labels_is_refused_where_there_are_none(setup: SearchSetup) -> None:
    for labelled, kd_weight, criterion in (
        (True, 0.5, "taylor"),
        (False, 1.0, "apoz"),
        (False, 1.0, "thinet"),
    ):
        check_labels(*_asking(setup, kd_weight, criterion), labelled=labelled)
    with pytest.raises(InvalidInputError, match="some candidates learn from"):
        check_labels(*_asking(setup, 0.5, "l2"), labelled=False)
    for criterion in ("taylor", "hessian"):
        with pytest.raises(InvalidInputError, match=f"the criterion '{criterion}' reads.*apoz"):
            check_labels(*_asking(setup, 1.0, criterion), labelled=False)
