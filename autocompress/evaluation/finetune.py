"""Train a compressed model, with the original or others as its teachers."""

import copy
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from autocompress.core.candidate import DistillConfig
from autocompress.core.recipe import Recipe
from autocompress.errors import TrainingError, explain
from autocompress.evaluation.answers import Answers, own_epoch_seed
from autocompress.evaluation.averaging import (
    WeightAverage,
    copy_weights,
    set_weights,
    weights_of,
)
from autocompress.evaluation.batches import size
from autocompress.evaluation.compiling import worth_compiling
from autocompress.evaluation.feed import Feed
from autocompress.evaluation.optimisation import (
    make_optimiser,
    optimiser_tensors,
    restore_optimiser,
    set_rate,
)
from autocompress.evaluation.penalties import group_lasso, norm_scales_l1
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.proxy import score, settle
from autocompress.evaluation.snapshot import Snapshots, prefixed, under
from autocompress.evaluation.splits import CALIBRATION_IMAGES, take
from autocompress.evaluation.task import Batch, Task
from autocompress.evaluation.teaching import BOTH, LABELS, Teaching
from autocompress.graph.operations import record_operations
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import Cut

SELF_DECAY = 0.99
"""Decay of the average that teaches in self-distillation, where the recipe has none."""

LOOKS = 20
"""How often a training with patience looks at `val`, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneConfig:
    """How long and how a student learns.

    Attributes:
        images: Training images to see, any multiple or fraction of an epoch.
        recipe: How weights are updated.
        seconds: Wall time after which the schedule is cut short; None for none.
        cycle: The part of the learning rate's schedule that this training runs through.
        norm_l1: Weight of the penalty on batch-norm scales; see `penalties`.
        group_lasso: Weight of the penalty on filters and channels.
        learned_steps: Whether grids below 8 bits are trained, with activations on them.
        quantised: Whether grids below 8 bits are on; without, steps are not learned either, and
            those that were are forgotten.
        lesson: `BOTH`, `LABELS` or `CO_STUDY`; see `Teaching`.
        self_taught: Whether the moving average of the student is its teacher.
    """

    images: int
    recipe: Recipe = field(default_factory=Recipe)
    seconds: float | None = None
    cycle: tuple[float, float] = (0.0, 1.0)
    norm_l1: float = 0.0
    group_lasso: float = 0.0
    learned_steps: bool = False
    quantised: bool = True
    lesson: str = BOTH
    self_taught: bool = False


def fine_tune(
    student: CompressedModel,
    teacher: nn.Module,
    task: Task,
    distill: DistillConfig,
    config: FineTuneConfig,
    *,
    seed: int,
    device: str = "cpu",
    on_step: Callable[[float], None] | None = None,
    doomed: Sequence[Cut] = (),
    others: Sequence[nn.Module] = (),
    val: Sequence[Batch] = (),
    snapshots: Snapshots | None = None,
    answers: Answers | None = None,
) -> int:
    """Train a student in place.

    Where some layer has fewer than 8 bits, the weight grids of all layers stay
    on. With learned steps (Esser et al. 2020), so do activation grids below 8
    bits, and the steps of all grids below 8 bits are trained too; other weights
    get straight-through gradients, and other activation grids are off, since
    calibration follows training. Masked weights stay at zero. Teachers
    stay in eval mode and are not changed, but for the first in co-study.

    Args:
        student: Trained in place; ends in eval mode, not yet settled.
        teacher: The original model, or who takes its place.
        task: Supplies `train` and the loss.
        distill: Temperature, weights and method of the teachers' part.
        config: Length and recipe.
        seed: Draws shuffling, augmentation and dropout; the caller's random
            state is left alone.
        device: Torch device name.
        on_step: Called with the share done, in (0, 1].
        doomed: Channels of the student that will be cut next; the penalties
            drive them to zero.
        others: Further teachers.
        val: Where a recipe with patience looks; none for no looks.
        snapshots: Where the state is written now and then, and where an
            interrupted training goes on; without a limit of time, it ends as
            it would have undisturbed.
        answers: The epochs that come again, and what the teachers said of them; used where
            their outputs alone teach. None draws every epoch anew.

    Returns:
        The number of training images seen.

    Raises:
        TrainingError: If the loss stops being finite.
        InvalidInputError: If there are no features of the kind that is compared.
    """
    student.release_grids()
    if not config.quantised:
        student.forget_steps()
    student.eval()
    narrow = config.quantised and any(bits < 8 for bits in student.record.quantised.values())
    found = None if snapshots is None else snapshots.read_stage()
    if found is not None:
        _restore(student, *found)
    elif config.learned_steps and config.quantised:
        begin_steps(student, task, seed, device)
    average = None
    if config.self_taught or config.recipe.ema > 0.0:
        average = WeightAverage(student, config.recipe.ema or SELF_DECAY)
    first = average.model if config.self_taught and average is not None else teacher
    needs_example = distill.feature_weight > 0.0 and config.lesson != LABELS
    example = _example(task, seed, device) if needs_example else None
    student.train()
    for model in (student, *(() if average is None else (average.model,))):
        model.quantise_weights, model.quantise_activations = narrow, False
    with (
        seeded(seed, device),
        Teaching(
            student,
            (first, *others),
            task,
            distill,
            config.lesson,
            example,
            moving=config.self_taught,
            compiled=worth_compiling(config.recipe, config.seconds, device),
            answers=answers,
        ) as teaching,
    ):
        training = _Training(
            student, teaching, config, average, seed=seed, device=device, doomed=doomed, val=val
        )
        if found is not None:
            training.go_on(*found)
        try:
            training.run(on_step, snapshots)
        finally:
            student.eval()
    if average is not None and config.recipe.ema > 0.0:
        set_weights(student, copy_weights(average.model))
    if training.best:
        set_weights(student, training.best)
    student.eval()
    return training.seen


class _Training:
    """A training and where it stands."""

    def __init__(
        self,
        student: CompressedModel,
        teaching: Teaching,
        config: FineTuneConfig,
        average: WeightAverage | None,
        *,
        seed: int,
        device: str,
        doomed: Sequence[Cut],
        val: Sequence[Batch],
    ) -> None:
        self.student, self.teaching, self.config = student, teaching, config
        self.average, self.device, self.doomed, self.val = average, device, doomed, val
        answers = teaching.answers
        drawn = own_epoch_seed if answers is None else answers.epoch_seed
        marked = answers is not None and answers.views > 0
        self.feed = Feed(teaching.task.train, device, partial(drawn, seed), marked=marked)
        teacher = teaching.trained_teacher
        self.optimiser = make_optimiser(student, config.recipe, teaching.regressors, teacher)
        self.seen, self.begun, self.started = 0, 0.0, time.monotonic()
        self.best: dict[str, Tensor] = {}
        self.best_accuracy, self.looked, self.waited = -1.0, 0.0, 0

    def run(self, on_step: Callable[[float], None] | None, snapshots: Snapshots | None) -> None:
        """Train to the end of the schedule, or until `val` has not grown for long enough."""
        config, recipe, pending = self.config, self.config.recipe, 0
        for batch in self.feed:
            progress = self._progress()
            if progress >= 1.0:
                if self.seen > 0 and self.looked < 1.0:
                    self._look()
                break
            if recipe.patience and self.waited >= recipe.patience:
                break
            if pending == 0:
                start, end = config.cycle
                set_rate(self.optimiser, recipe, start + progress * (end - start))
                self.optimiser.zero_grad()
            loss = self._loss(batch)
            torch.autograd.backward(loss)
            self.seen, pending = self.seen + size(batch), pending + 1
            if pending == recipe.accumulate or self.seen >= config.images:
                self._step(loss, pending)
                pending = 0
                self._look()
                if on_step is not None:
                    on_step(min(1.0, max(progress, self.seen / config.images)))
                if snapshots is not None:
                    snapshots.offer(self._numbers(), self._tensors)

    def go_on(self, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take the place of a training that was interrupted; the student has its own already."""
        for name, module in self._beside().items():
            set_weights(module, under(name, tensors))
        restore_optimiser(self.optimiser, under("optimiser", tensors))
        self.feed.go_to(under("feed", tensors))
        self.best = under("best", tensors)
        self.seen, self.begun = numbers["seen"], numbers["progress"]
        self.best_accuracy, self.looked = numbers["best"], numbers["looked"]
        self.waited = numbers["waited"]
        if self.average is not None:
            self.average.steps = numbers["averaged"]
            self.average.model.eval()  # which reads learned steps

    def _progress(self) -> float:
        """Return the share of the schedule that is done, by images and by time."""
        progress = self.seen / self.config.images if self.config.images > 0 else 1.0
        if self.config.seconds is not None:
            elapsed = (time.monotonic() - self.started) / self.config.seconds
            progress = max(progress, self.begun + (1.0 - self.begun) * elapsed)
        return progress

    def _loss(self, batch: Batch) -> Tensor:
        config, network = self.config, self.student.network
        with arithmetic(self.device, low_precision=config.recipe.low_precision):
            loss = self.teaching.loss(batch, self.feed.mark)
        if config.norm_l1 > 0.0:
            loss = loss + config.norm_l1 * norm_scales_l1(network, self.doomed)
        if config.group_lasso > 0.0:
            loss = loss + config.group_lasso * group_lasso(network, self.doomed)
        return loss

    def _step(self, loss: Tensor, batches: int) -> None:
        """Make a step with the mean gradient of some batches, of which the last had that loss."""
        if batches > 1:
            trained = [p for group in self.optimiser.param_groups for p in group["params"]]
            for parameter in trained:
                if parameter.grad is not None:
                    parameter.grad /= batches
        self.student.mask_gradients()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), self.config.recipe.clip_norm)
        if not math.isfinite(float(norm)):
            raise TrainingError(
                explain(
                    "fine-tuning",
                    expected="a finite loss",
                    got=f"loss {float(loss.detach()):g} after {self.seen} images",
                    remedy="lower the learning rate, or check the training data",
                )
            )
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.student)

    def _look(self) -> None:
        """Score the model on `val` when it is time to, and keep the best."""
        progress = self._progress()
        if not (self.config.recipe.patience and self.val):
            return
        if progress - self.looked < 1.0 / LOOKS and progress < 1.0:
            return
        averaged = self.average is not None and self.config.recipe.ema > 0.0
        model = self.average.model if averaged and self.average is not None else self.student
        accuracy = score(model, self.teaching.task, self.val, device=self.device)
        self.student.train()
        self.looked = progress
        if accuracy > self.best_accuracy:
            self.best_accuracy, self.waited = accuracy, 0
            self.best = copy_weights(model)
        else:
            self.waited += 1

    def _beside(self) -> dict[str, nn.Module]:
        """Return what changes beside the student, by a name for it."""
        modules = {"regressors": self.teaching.regressors}
        return modules | ({} if self.average is None else {"average": self.average.model})

    def _numbers(self) -> dict[str, Any]:
        return {
            "seen": self.seen,
            "progress": self._progress(),
            "best": self.best_accuracy,
            "looked": self.looked,
            "waited": self.waited,
            "averaged": 0 if self.average is None else self.average.steps,
            "steps": [*self.student.steps],
        }

    def _tensors(self) -> dict[str, Tensor]:
        found = prefixed("student", self.student.state_dict())
        for name, module in self._beside().items():
            found |= prefixed(name, weights_of(module))
        found |= prefixed("optimiser", optimiser_tensors(self.optimiser))
        return found | prefixed("feed", self.feed.position()) | prefixed("best", self.best)


def _restore(student: CompressedModel, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give a student weights, grids and exactly the learned steps that it had, in their order."""
    state = under("student", tensors)
    student.forget_steps()
    student.set_steps({key: state[f"steps.{key}"] for key in numbers["steps"]}, {})
    student.load_state_dict(state)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Draw from a seed, and leave the caller's random state as it was."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _example(task: Task, seed: int, device: str) -> Batch:
    """Return the first training batch."""
    with seeded(seed, device):
        return next(take(task.train, CALIBRATION_IMAGES, "train", device))


_ALIKE: WeakKeyDictionary[Task, dict[Hashable, bool]] = WeakKeyDictionary()
"""What `_trains_as_it_runs` found, by the modules of a network."""


def begin_steps(student: CompressedModel, task: Task, seed: int, device: str) -> None:
    """Make steps parameters; those of activations begin where calibration puts them.

    A network that runs other operations in training, as one with stochastic
    depth does, has none of activations: their places would be others there.

    Args:
        student: Changed in place.
        task: Supplies `train`, on which the grids are calibrated if they are not.
        seed: Draws the batches.
        device: Torch device name.
    """
    narrow = [quantiser for site, quantiser in student.sites() if site.bits < 8]
    if any(quantiser.low is None for quantiser in narrow):
        with seeded(seed, device):
            batches = list(take(task.train, CALIBRATION_IMAGES, "train", device))
        settle(student, task, batches, batches, device=device, trained=True)
    activations = bool(narrow) and _trains_as_it_runs(student, task, seed, device)
    student.learn_steps(activations=activations)


def _trains_as_it_runs(student: CompressedModel, task: Task, seed: int, device: str) -> bool:
    """Tell whether a network runs the same operations in training as otherwise.

    That is found out with two examples, and once for the modules that it has.
    """
    known = _ALIKE.setdefault(task, {})
    modules = tuple((name, type(module)) for name, module in student.network.named_modules())
    if modules not in known:
        with seeded(seed, device):
            batch = next(take(task.train, 2, "train", device))
            inputs = task.arguments(student, batch)
            network = copy.deepcopy(student.network)
            runs = [record_operations(network.train(mode), inputs) for mode in (True, False)]
        trained, other = ([(op.kind, op.outputs) for op in run.operations] for run in runs)
        known[modules] = trained == other
    return known[modules]
