"""Evaluate candidates: the proxy, and fine-tuning that resumes from checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.seeds import derive_seed
from autocompress.evaluation.checkpoints import (
    find_ancestor,
    list_checkpoints,
    load_weights,
    save_checkpoint,
)
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.proxy import (
    divergence,
    log_probabilities,
    recalibrate_batch_norms,
    score,
    settle,
)
from autocompress.evaluation.splits import Splits, count, example_inputs
from autocompress.evaluation.task import Task
from autocompress.graph.structure import ModelGraph
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.criteria import Evidence, gather_evidence
from autocompress.transform.surgeon import Surgeon


class Evaluator:
    """Evaluates candidates of one model on one task.

    Args:
        model: The trained original, in eval mode on `device`; never changed.
        graph: Its structure.
        task: The user's task.
        splits: The batches that stay fixed for the study.
        checkpoints: Folder of trained weights.
        seed: The seed of the run.
        device: Torch device name.

    Attributes:
        seconds_per_image: Of the latest training; 0 before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        task: Task,
        splits: Splits,
        *,
        checkpoints: Path,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.model, self.graph, self.task, self.splits = model, graph, task, splits
        self.checkpoints, self.seed, self.device = checkpoints, seed, device
        self.seconds_per_image = 0.0
        self.inputs = example_inputs(task, model, splits.val)
        self._surgeon = Surgeon(model, graph, self.inputs, gather=self._gather, seed=seed)
        self._reference = log_probabilities(model, task, splits.sensitivity, device=device)

    def compress(self, candidate: Candidate) -> CompressedModel:
        """Cut and quantise a copy of the model; not settled yet."""
        return self._surgeon.compress(candidate)

    def scores(self, criterion: str) -> dict[str, NDArray[np.float64]]:
        """Score the channels of every prunable group, by its name; the lowest go first."""
        return self._surgeon.scores(criterion)

    def _gather(self) -> Evidence:
        """Observe the original on training batches, for criteria that need data."""
        return gather_evidence(
            self.model,
            self.graph,
            self.splits.sensitivity,
            self.task.run,
            self.task.loss,
            seed=self.seed,
        )

    def settle(self, model: CompressedModel, *, exact: bool = False) -> None:
        """Recalibrate batch norms and grids; see `proxy.settle`."""
        settle(
            model,
            self.task,
            self.splits.recalibration,
            self.splits.calibration,
            device=self.device,
            exact=exact,
        )

    def proxy(self, candidate: Candidate) -> FidelityResult:
        """Evaluate at fidelity 0: surgery, recalibration, accuracy on part of `val`."""
        started = time.monotonic()
        model = self.compress(candidate)
        self.settle(model)
        accuracy = score(model, self.task, self.splits.proxy, device=self.device)
        return FidelityResult(
            accuracy=accuracy,
            images=count(self.splits.proxy),
            trained_images=0,
            seconds=time.monotonic() - started,
        )

    def train(
        self,
        candidate: Candidate,
        *,
        slot: int,
        images: int,
        seconds: float | None = None,
        on_step: Callable[[float], None] | None = None,
    ) -> tuple[CompressedModel, FidelityResult]:
        """Fine-tune a candidate, from the closest trained relative if there is one.

        Args:
            candidate: What to train, with its temperature and kd_weight.
            slot: The trial slot; seeds the training and names the checkpoint.
            images: Training images to see now; 0 only settles what is there.
            seconds: Wall time for the training; None for no limit.
            on_step: Called with the share done.

        Returns:
            The settled model, calibrated in float32, and its accuracy on all
            of `val`.
        """
        started = time.monotonic()
        model = self.compress(candidate)
        ancestor = find_ancestor(model, list_checkpoints(self.checkpoints))
        before = 0
        if ancestor is not None:
            load_weights(model, ancestor, self.model)
            before = ancestor.trained_images
        trained = 0
        if images > 0:
            begun = time.monotonic()
            trained = fine_tune(
                model,
                self.model,
                self.task,
                candidate.distill,
                FineTuneConfig(images=images, seconds=seconds),
                seed=derive_seed(self.seed, slot, f"fine-tune after {before}"),
                device=self.device,
                on_step=on_step,
            )
            self.seconds_per_image = (time.monotonic() - begun) / max(1, trained)
        if before + trained > 0:
            save_checkpoint(model, self._checkpoint(slot), before + trained)
        self.settle(model, exact=True)
        accuracy = score(model, self.task, self.splits.val, device=self.device)
        result = FidelityResult(
            accuracy=accuracy,
            images=count(self.splits.val),
            trained_images=before + trained,
            seconds=time.monotonic() - started,
        )
        return model, result

    def forget(self, slot: int) -> None:
        """Delete the trained weights of a slot, so that a retry begins as the first attempt did."""
        self._checkpoint(slot).unlink(missing_ok=True)

    def _checkpoint(self, slot: int) -> Path:
        return self.checkpoints / f"{slot:05d}.safetensors"

    def deviation(self, candidate: Candidate) -> float:
        """Return KL(original || candidate) on calibration images, without training.

        Batch norms are recalibrated when channels are gone, since their
        statistics no longer fit; weight grids apply, activation grids do not.
        """
        model = self.compress(candidate)
        model.quantise_activations = False
        if candidate.pruning_ratios:
            recalibrate_batch_norms(model, self.task, self.splits.sensitivity, device=self.device)
        outputs = log_probabilities(model, self.task, self.splits.sensitivity, device=self.device)
        return divergence(self._reference, outputs)
