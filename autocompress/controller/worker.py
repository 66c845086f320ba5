"""A worker's side of a search: what is placed there once, and what it does with work."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from autocompress.controller.setup import SearchSetup
from autocompress.controller.work import Outcome, Work
from autocompress.core.files import write_bytes
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.elastic import SharedWeights
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.splits import Splits
from autocompress.evaluation.task import Task
from autocompress.graph.structure import ModelGraph


def evaluate(
    evaluator: Evaluator, work: Work, on_step: Callable[[float], None] | None = None
) -> Outcome:
    """Do a piece of work with the checkpoints that the evaluator has.

    Args:
        evaluator: Evaluates candidates of the search's model.
        work: What to do.
        on_step: Called with the share of a training that is done.
    """
    if work.fidelity == 0:
        result = evaluator.proxy(work.candidate)
        return Outcome(slot=work.slot, fidelity=0, result=result)
    _, result = evaluator.train(
        work.candidate,
        slot=work.slot,
        images=work.images,
        seconds=work.seconds,
        on_step=on_step,
    )
    return Outcome(
        slot=work.slot,
        fidelity=work.fidelity,
        result=result,
        seconds_per_image=evaluator.seconds_per_image,
    )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a search places on every worker, once.

    Attributes:
        model: The trained original.
        graph: Its structure.
        task: The user's task.
        splits: The batches of the study.
        seed: The seed of the run.
        device: Torch device name.
        training: How candidates are cut and quantised while they are trained.
        quantisation: How grids are chosen.
        threads: Threads that a worker computes with, >= 1.
        teachers: Teachers beside the original.
        shared: Elastic weights that proxies use, if they do.
        views: Epochs that trainings draw; None for what the recipe says.
    """

    model: nn.Module
    graph: ModelGraph
    task: Task
    splits: Splits
    seed: int
    device: str
    training: TrainingConfig
    quantisation: QuantisationConfig
    threads: int
    teachers: tuple[nn.Module, ...] = ()
    shared: SharedWeights | None = None
    views: int | None = None

    @classmethod
    def of(
        cls, setup: SearchSetup, shared: SharedWeights | None = None, views: int | None = None
    ) -> "Placement":
        """Take from the setup of a search what its workers need."""
        return cls(
            model=setup.model,
            graph=setup.graph,
            task=setup.task,
            splits=setup.splits,
            seed=setup.seed,
            device=setup.device,
            training=setup.training,
            quantisation=setup.quantisation,
            threads=setup.executor.cpus,
            teachers=setup.teachers,
            shared=shared,
            views=views,
        )

    def __call__(self) -> "RemoteEvaluate":
        """Prepare a worker."""
        return RemoteEvaluate(self)


class RemoteEvaluate:
    """Does work without access to the study's folder: weights come and go with it."""

    def __init__(self, placed: Placement) -> None:
        """Prepare a worker.

        Args:
            placed: What the search has placed here.
        """
        torch.set_num_threads(placed.threads)
        self._folder = Path(tempfile.mkdtemp(prefix="autocompress-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._evaluator = Evaluator(
            placed.model.to(placed.device),
            placed.graph,
            placed.task,
            placed.splits,
            checkpoints=self._folder,
            seed=placed.seed,
            device=placed.device,
            training=placed.training,
            quantisation=placed.quantisation,
            teachers=placed.teachers,
        )
        self._evaluator.shared = placed.shared
        if placed.views is not None:
            self._evaluator.answers.views = placed.views

    def __call__(self, work: Work) -> Outcome:
        """Do a piece of work."""
        for left in self._folder.iterdir():
            left.unlink()
        if work.weights:
            write_bytes(self._folder / "inherited.safetensors", work.weights)
        outcome = evaluate(self._evaluator, work)
        trained = self._evaluator.checkpoint(work.slot)
        return replace(outcome, weights=trained.read_bytes()) if trained.exists() else outcome
