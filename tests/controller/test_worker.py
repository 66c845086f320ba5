"""A worker's side: without the study's folder it finds what the search would."""

from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
from safetensors.torch import load

from autocompress.controller.work import Work
from autocompress.controller.worker import Placement, RemoteEvaluate, evaluate
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.splits import make_splits
from autocompress.evaluation.task import Task
from subjects import mixed


@pytest.fixture(scope="module")
def placed() -> Placement:
    model, graph, batches = mixed()
    task = Task(train=batches, val=batches[:1], test=batches[1:2])
    return Placement(
        model=model,
        graph=graph,
        task=task,
        splits=make_splits(task, seed=0, device="cpu"),
        seed=0,
        device="cpu",
        training=TrainingConfig(),
        quantisation=QuantisationConfig(),
        threads=1,
        teachers=(),
        shared=None,
    )


def _tensors(checkpoint: bytes) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in load(checkpoint).items()}


def test_weights_travel_to_a_worker_and_back(placed: Placement, tmp_path: Path) -> None:
    here = Evaluator(
        placed.model, placed.graph, placed.task, placed.splits, checkpoints=tmp_path, seed=0
    )
    there: RemoteEvaluate = cloudpickle.loads(cloudpickle.dumps(placed))()
    layer = next(layer.name for layer in placed.graph.layers if layer.quantisable)
    narrow = Candidate(layers={layer: LayerConfig(weight_bits=4)})
    for slot, candidate in enumerate((Candidate(), narrow)):
        assert evaluate(here, Work(slot=slot, candidate=candidate, fidelity=0)).result is not None
        near = evaluate(here, Work(slot=slot, candidate=candidate, fidelity=1, images=32))
        trained = here.checkpoint(slot).read_bytes()
        here.forget(slot)
        sent = here.inherited(candidate)
        assert (sent == b"") == (slot == 0)
        far = there(Work(slot=slot, candidate=candidate, fidelity=1, images=32, weights=sent))
        assert near.result is not None
        assert far.result is not None
        assert far.result.accuracy == near.result.accuracy
        assert far.result.trained_images == near.result.trained_images > 33 * slot
        assert _tensors(far.weights) == _tensors(trained)
        here.checkpoint(slot).write_bytes(far.weights)


def test_a_worker_computes_with_the_threads_that_it_has(placed: Placement) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            replace(placed, threads=threads)()
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_worker_draws_as_many_epochs_as_the_search(placed: Placement) -> None:
    assert replace(placed, views=3)()._evaluator.answers.views == 3
    own = Evaluator(
        placed.model, placed.graph, placed.task, placed.splits, checkpoints=Path(), seed=0
    )
    assert placed()._evaluator.answers.views == own.answers.views > 3
