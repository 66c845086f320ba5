from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.core.candidate import Candidate
from autocompress.evaluation import evaluator as evaluator_module
from autocompress.evaluation.checkpoints import list_checkpoints
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import make_splits
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import CRITERIA, Evidence, find_criterion, gather_evidence
from blobs import make_task, trained_model
from seasoned import pruned, uniform

CUT = 0.7


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    task = make_task()
    model = trained_model(task)
    splits = make_splits(task, seed=0)
    graph = trace(model, splits.val[0][0])
    return Evaluator(model, graph, task, splits, checkpoints=tmp_path / "checkpoints", seed=0)


def _candidate(evaluator: Evaluator, bits: int = 8) -> Candidate:
    return Candidate(
        pruning_ratios=pruned(evaluator.graph, CUT), layers=uniform(evaluator.graph, bits)
    )


def test_the_proxy_of_the_unmodified_model_is_its_accuracy(evaluator: Evaluator) -> None:
    result = evaluator.proxy(Candidate())
    expected = score(evaluator.model, evaluator.task, evaluator.splits.proxy)
    assert result.accuracy == expected
    assert result.images == 256
    assert result.trained_images == 0
    assert result.seconds > 0
    assert evaluator.deviation(Candidate()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_prunes_and_data_are_gathered_once(
    evaluator: Evaluator, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def gather(*args: Any, **kwargs: Any) -> Evidence:
        calls.append(kwargs["seed"])
        return gather_evidence(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "gather_evidence", gather)
    candidate = replace(_candidate(evaluator), criterion=criterion)
    accuracies = [evaluator.proxy(candidate).accuracy for _ in range(2)]
    assert accuracies[0] == accuracies[1]
    assert evaluator.deviation(candidate) > 0
    scores = evaluator.scores(criterion)
    assert scores.keys() == candidate.pruning_ratios.keys()
    assert calls == [0] * (find_criterion(criterion).needs != "weights")


def test_deviation_grows_with_compression(evaluator: Evaluator) -> None:
    graph = evaluator.graph
    narrow = [evaluator.deviation(Candidate(layers=uniform(graph, bits))) for bits in (8, 4, 2)]
    assert 0 < narrow[0] < narrow[1] < narrow[2]
    assert evaluator.deviation(Candidate(pruning_ratios=pruned(graph, CUT))) > narrow[0]


def test_training_resumes_from_the_checkpoint_of_a_relative(evaluator: Evaluator) -> None:
    proxy = evaluator.proxy(_candidate(evaluator))
    model, first = evaluator.train(_candidate(evaluator), slot=4, images=512)
    assert first.trained_images == 512
    assert first.images == 256
    assert first.accuracy > proxy.accuracy
    assert model.calibrated
    assert [c.path.name for c in list_checkpoints(evaluator.checkpoints)] == ["00004.safetensors"]
    again, settled = evaluator.train(_candidate(evaluator), slot=4, images=0)
    assert settled.trained_images == 512
    assert settled.accuracy == first.accuracy
    for name, tensor in again.network.state_dict().items():
        assert torch.equal(tensor, model.network.state_dict()[name]), name
    _, relative = evaluator.train(_candidate(evaluator, bits=4), slot=5, images=128)
    assert relative.trained_images == 640


def test_nothing_is_saved_of_what_was_not_trained(evaluator: Evaluator) -> None:
    _, result = evaluator.train(_candidate(evaluator), slot=0, images=0)
    assert result.trained_images == 0
    assert list_checkpoints(evaluator.checkpoints) == []
