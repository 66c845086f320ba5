"""Evaluate candidates: the proxy, and fine-tuning that resumes from checkpoints."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.core.candidate import UNIFORM, Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.quantisation import HESSIAN, QuantisationConfig
from autocompress.core.seeds import derive_seed
from autocompress.core.training import TrainingConfig
from autocompress.cost.pace import pace
from autocompress.errors import TrainingError
from autocompress.evaluation.answers import Answers
from autocompress.evaluation.batches import count, first, last
from autocompress.evaluation.checkpoints import (
    find_ancestor,
    list_checkpoints,
    load_weights,
    save_checkpoint,
)
from autocompress.evaluation.course import Course
from autocompress.evaluation.curvature import hessian_traces, rounding_damage
from autocompress.evaluation.elastic import SharedWeights
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.proxy import (
    output_form,
    predictions,
    recalibrate_batch_norms,
    score,
    settle,
)
from autocompress.evaluation.snapshot import Snapshots
from autocompress.evaluation.splits import CALIBRATION_IMAGES, Splits, epoch_images, example_inputs
from autocompress.evaluation.stages import plan_stages
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.structure import ModelGraph
from autocompress.transform.compress import calibrate_grids
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.criteria import Evidence, gather_evidence
from autocompress.transform.surgeon import Surgeon

SCORING_SHARE = 0.3
"""Share of a training's time that scoring all of `val` may take, at the original's speed."""


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
        training: How a candidate is cut and quantised while it is trained.
        quantisation: How grids are chosen.
        teachers: Teachers beside the original.

    Attributes:
        seconds_per_image: What the latest training took over the `pace` of its candidate, so
            what the original would; 0 before the first.
        traces: What `hessian_traces` returns; None before the first call.
        shared: Elastic weights that proxies use; None for the original's.
        answers: What teachers have said of training batches.
        original_seconds: What the original's outputs take, per image.
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
        training: TrainingConfig = TrainingConfig(),  # noqa: B008  frozen
        quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        self.teachers = tuple(teachers)
        self.model, self.graph, self.task, self.splits = model, graph, task, splits
        self.checkpoints, self.seed, self.device = checkpoints, seed, device
        self.seconds_per_image = 0.0
        self.traces: dict[str, float] | None = None
        self.shared: SharedWeights | None = None
        self._wholes: dict[Candidate, float] = {}
        self.training, self.quantisation = training, quantisation
        self.inputs = example_inputs(task, model, splits.val)
        self._surgeon = Surgeon(
            model,
            graph,
            self.inputs,
            gather=self._gather,
            seed=seed,
            quantisation=quantisation,
        )
        self._form = output_form(model, task, splits.val[0])  # whose targets tell
        begun = time.monotonic()
        self._looked_at: Sequence[Batch] = splits.sensitivity
        self._noise: float | None = None
        self._reference = predictions(model, task, self._looked_at, device=device)
        self.original_seconds = (time.monotonic() - begun) / count(splits.sensitivity)
        outputs = 4 * self._reference.numel() // count(splits.sensitivity)  # bytes an image
        self.answers = Answers(seed, training.recipe.views, outputs * epoch_images(task))

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
            self.task.loss_on(self.splits.sensitivity),
            seed=self.seed,
        )

    def settle(self, model: CompressedModel, *, exact: bool = False, trained: bool = False) -> None:
        """Recalibrate batch norms and grids, and round weights; see `proxy.settle`."""
        settle(
            model,
            self.task,
            self.splits.recalibration,
            self.splits.calibration,
            device=self.device,
            exact=exact,
            quantisation=self.quantisation,
            trained=trained,
        )

    def calibrate_anew(self, model: CompressedModel) -> bool:
        """Set a settled model's activation grids by other images; False if there are none."""
        if not model.record.plan.sites or count(self.splits.recalibration) <= CALIBRATION_IMAGES:
            return False
        others = tuple(last(self.splits.recalibration, CALIBRATION_IMAGES))
        with arithmetic(self.device, low_precision=False):
            calibrate_grids(model, others, self.task.run, self.quantisation.observer)
        return True

    def proxy(self, candidate: Candidate) -> FidelityResult:
        """Evaluate at fidelity 0: surgery, recalibration, accuracy on part of `val`."""
        started = time.monotonic()
        model = self.compress(candidate)
        if self.shared is not None:
            self.shared.inherit(model)
        self.settle(model, trained=self.shared is not None)
        return self._scored(model, self.splits.proxy, 0, started)

    def train(
        self,
        candidate: Candidate,
        *,
        slot: int,
        images: int,
        seconds: float | None = None,
        on_step: Callable[[float], None] | None = None,
        fidelity: int = 1,
        inherit: bool = True,
    ) -> tuple[CompressedModel, FidelityResult]:
        """Fine-tune a candidate as `fine_tune` does, and score it on `val`.

        Where all of `val` would take too long for the training's time, the proxy's images do.

        Returns:
            The settled model, calibrated in float32, and its accuracy.
        """
        started = time.monotonic()
        model, trained = self.fine_tune(
            candidate,
            slot=slot,
            images=images,
            seconds=seconds,
            on_step=on_step,
            fidelity=fidelity,
            inherit=inherit,
        )
        scored, needed = self.splits.val, self.original_seconds * count(self.splits.val)
        if seconds is not None and needed > SCORING_SHARE * seconds:
            scored = self.splits.proxy
        return model, self._scored(model, scored, trained, started)

    def _scored(
        self, model: CompressedModel, batches: Sequence[Batch], trained: int, started: float
    ) -> FidelityResult:
        return FidelityResult(
            accuracy=score(model, self.task, batches, device=self.device),
            images=count(batches),
            trained_images=trained,
            seconds=time.monotonic() - started,
        )

    def fine_tune(
        self,
        candidate: Candidate,
        *,
        slot: int,
        images: int,
        seconds: float | None = None,
        on_step: Callable[[float], None] | None = None,
        fidelity: int = 1,
        inherit: bool = True,
    ) -> tuple[CompressedModel, int]:
        """Fine-tune a candidate, from the closest trained relative if there is one.

        Without `inherit` it starts from what an earlier training of its own slot has made of it, or
        from the original. At fidelity 2 it is cut in the stages of the schedule, from a relative
        that is no smaller than the first stage: several stages begin near the original.

        Args:
            candidate: What to train, with its temperature and kd_weight.
            slot: The trial slot; seeds the training and names the checkpoint.
            images: Training images to see now; 0 only settles what is there.
            seconds: Wall time for the training; None for no limit.
            on_step: Called with the share done.
            fidelity: 1 cuts at once; 2 follows the schedule.
            inherit: Whether weights of other slots may be used.

        Returns:
            The settled model, calibrated in float32, and the training images
            that its weights have seen, those of its relatives included.
        """
        training = self.training if fidelity == 2 and images > 0 else self.training.at_once()
        first = plan_stages(candidate, training, self.graph)[0]
        model = self._cut(first.candidate, candidate)
        known = list_checkpoints(self.checkpoints)
        own = [checkpoint for checkpoint in known if checkpoint.path == self.checkpoint(slot)]
        ancestor = find_ancestor(model, known if inherit else own)
        before = trained = 0
        if ancestor is not None:
            load_weights(model, ancestor, self.model)
            before = ancestor.trained_images
        if images > 0:
            model, trained = self._train(
                model, candidate, training, slot, before, images, seconds, on_step, fidelity
            )
            save_checkpoint(model, self.checkpoint(slot), before + trained, fidelity)
        elif ancestor is not None and ancestor not in own:
            save_checkpoint(model, self.checkpoint(slot), before)
        on_grids = before + trained > 0 and training.quantise != "after"
        self.settle(model, exact=True, trained=on_grids)
        return model, before + trained

    def _train(
        self,
        model: CompressedModel,
        candidate: Candidate,
        training: TrainingConfig,
        slot: int,
        before: int,
        images: int,
        seconds: float | None,
        on_step: Callable[[float], None] | None,
        fidelity: int,
    ) -> tuple[CompressedModel, int]:
        """Send a model through its course; one that fails begins anew the next time."""
        begun = time.monotonic()
        snapshots = Snapshots(
            self.checkpoint(slot).with_suffix(".training"),
            {
                "candidate": candidate.canonical().to_json(),
                "training": asdict(training),
                "images": images if seconds is None else None,
                "before": before,
                "seed": self.seed,
            },
            training.recipe.checkpoint_seconds,
        )
        course = Course(
            candidate=candidate,
            training=training,
            graph=self.graph,
            cut=lambda stage: self._cut(stage, candidate),
            teachers=(self.model, *self.teachers),
            task=self.task,
            val=self.splits.val,
            images=images,
            seconds=seconds,
            seed=lambda trained: derive_seed(
                self.seed, slot, f"fine-tune after {before + trained}"
            ),
            device=self.device,
            on_step=on_step,
            snapshots=snapshots,
            assistants=self.checkpoints / "assistants",
            answers=self.answers,
        )
        known = snapshots.images()
        try:
            model, trained = course.run(model)
        except TrainingError:
            snapshots.drop()
            raise
        if trained > known:
            taken = (time.monotonic() - begun) / (trained - known)
            self.seconds_per_image = taken / pace(self.graph, candidate)
        return model, trained

    def is_trained(self, slot: int) -> bool:
        """Tell whether a slot has the weights of a full fine-tune."""
        known = list_checkpoints(self.checkpoints)
        return any(c.path == self.checkpoint(slot) and c.fidelity == 2 for c in known)

    def forget(self, slot: int) -> None:
        """Delete the trained weights of a slot, so that a retry begins as the first attempt did."""
        self.checkpoint(slot).unlink(missing_ok=True)

    def inherited(self, candidate: Candidate) -> bytes:
        """Read the checkpoint that a short fine-tune would start from; empty if there is none."""
        known = list_checkpoints(self.checkpoints)
        ancestor = find_ancestor(self.compress(candidate), known)
        return b"" if ancestor is None else ancestor.path.read_bytes()

    def checkpoint(self, slot: int) -> Path:
        """Return the file that holds the trained weights of a slot, if there are any."""
        return self.checkpoints / f"{slot:05d}.safetensors"

    def _cut(self, stage: Candidate, candidate: Candidate) -> CompressedModel:
        """Cut a copy of the model to a stage on the way to a candidate."""
        return self._surgeon.compress(stage, final=candidate.canonical())

    def look_at(self, images: int) -> None:
        """Take deviations on so many images from now on, at most those of the splits."""
        self._looked_at, self._noise = tuple(first(self.splits.sensitivity, images)), None
        self._wholes.clear()
        self._reference = predictions(self.model, self.task, self._looked_at, device=self.device)

    def deviation(self, candidate: Candidate) -> float:
        """Return KL(original || candidate) on calibration images, without training.

        Of predicted numbers it is the mean squared difference.

        Batch norms are recalibrated when channels or weights are gone, since
        their statistics no longer fit; weight grids apply, activation grids do not.
        What recalibration on so few images does to the original is no candidate's doing,
        and is taken off.
        Where the Hessian is asked for, what weights below 8 bits cost is
        estimated from it, and the rest is taken with 8 bits.
        """
        if self.quantisation.sensitivity != HESSIAN:
            return self._divergence(candidate)
        layers = {
            name: replace(config, weight_bits=max(config.weight_bits, 8), weight_format=UNIFORM)
            for name, config in candidate.layers.items()
        }
        whole = replace(candidate, layers=layers)
        if whole not in self._wholes:
            self._wholes[whole] = self._divergence(whole)
        return self._wholes[whole] + rounding_damage(
            self.compress(candidate), self.hessian_traces()
        )

    def hessian_traces(self) -> dict[str, float]:
        """Return the Hessian's trace for each quantisable layer; estimated once."""
        if self.traces is None:
            self.traces = hessian_traces(
                self.model,
                [layer.name for layer in self.graph.layers if layer.quantisable],
                self.splits.sensitivity,
                self.task.run,
                seed=self.seed,
                form=self._form,
            )
        return self.traces

    def _divergence(self, candidate: Candidate) -> float:
        model = self.compress(candidate)
        model.quantise_activations = False
        if not candidate.pruning_ratios and not model.record.sparse:
            return self._differs(model)
        if self._noise is None:
            self._noise = self._recalibrated(self.compress(Candidate()))
        found = self._recalibrated(model)
        known = math.isfinite(found) and math.isfinite(self._noise)
        return max(0.0, found - self._noise) if known else found

    def _recalibrated(self, model: CompressedModel) -> float:
        recalibrate_batch_norms(model, self.task, self._looked_at, device=self.device)
        return self._differs(model)

    def _differs(self, model: CompressedModel) -> float:
        said = predictions(model, self.task, self._looked_at, device=self.device)
        return float(self._form.divergence(self._reference, said))
