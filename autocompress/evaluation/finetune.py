"""Train a compressed model with the original as its frozen teacher."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autocompress.core.candidate import DistillConfig
from autocompress.errors import InvalidInputError, TrainingError, explain
from autocompress.evaluation.penalties import group_lasso, norm_scales_l1
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.proxy import settle
from autocompress.evaluation.splits import CALIBRATION_IMAGES, place, size, take
from autocompress.evaluation.task import Batch, Task
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import Cut


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneConfig:
    """How long and how fast a student learns.

    Attributes:
        images: Training images to see, any multiple or fraction of an epoch.
        learning_rate: Peak of the one-cycle schedule (Smith 2018).
        momentum: Of SGD with Nesterov momentum.
        weight_decay: On weights of layers; norms, biases and steps have none.
        warm_up: Share of the steps in which the rate rises.
        clip_norm: Largest gradient norm.
        seconds: Wall time after which the schedule is cut short; None for none.
        cycle: The part of the one-cycle schedule that this training runs through.
        norm_l1: Weight of the penalty on batch-norm scales; see `penalties`.
        group_lasso: Weight of the penalty on filters and channels.
        learned_steps: Whether grids below 8 bits are trained, with activations on them.
    """

    images: int
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.15
    clip_norm: float = 5.0
    seconds: float | None = None
    cycle: tuple[float, float] = (0.0, 1.0)
    norm_l1: float = 0.0
    group_lasso: float = 0.0
    learned_steps: bool = False


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of softened outputs (Hinton et al. 2015).

    Args:
        student: Logits, n x classes.
        teacher: Logits of the same shape.
        temperature: Softening, > 0.

    Returns:
        The mean over examples, scaled by T^2 so that gradients keep their size.
    """
    soft = F.log_softmax(student.float() / temperature, dim=-1)
    target = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


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
) -> int:
    """Train a student in place.

    Where some layer has fewer than 8 bits, the weight grids of all layers stay
    on. With learned steps (Esser et al. 2020), so do activation grids below 8
    bits, and the steps of all grids below 8 bits are trained too; other weights
    get straight-through gradients, and other activation grids are off, since
    calibration follows training. Masked weights stay at zero. The teacher
    stays in eval mode and is not changed.

    Args:
        student: Trained in place; ends in eval mode, not yet settled.
        teacher: The original model.
        task: Supplies `train` and the loss.
        distill: Temperature and weight of the teacher's part.
        config: Length and rate.
        seed: Draws shuffling, augmentation and dropout; the caller's random
            state is left alone.
        device: Torch device name.
        on_step: Called with the share done, in (0, 1].
        doomed: Channels of the student that will be cut next; the penalties
            drive them to zero.

    Returns:
        The number of training images seen.

    Raises:
        TrainingError: If the loss stops being finite.
        InvalidInputError: If `distill` asks for more than logits.
    """
    _check_supported(distill)
    teacher.eval()
    student.release_grids()
    if config.learned_steps:
        _begin_steps(student, task, seed, device)
    student.train()
    student.quantise_weights = any(bits < 8 for bits in student.record.quantised.values())
    student.quantise_activations = False
    optimiser = torch.optim.SGD(
        _parameter_groups(student, config.weight_decay),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
    seen, started = 0, time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in _training_batches(task, config.images, device):
            elapsed = time.monotonic() - started
            progress = seen / config.images
            if config.seconds is not None:
                progress = max(progress, elapsed / config.seconds)
            if progress >= 1.0:
                break
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * _one_cycle(
                    config.cycle[0] + progress * (config.cycle[1] - config.cycle[0]),
                    config.warm_up,
                )
            with arithmetic(device):
                loss = _task_loss(student, teacher, task, distill, batch)
            if config.norm_l1 > 0.0:
                loss = loss + config.norm_l1 * norm_scales_l1(student.network, doomed)
            if config.group_lasso > 0.0:
                loss = loss + config.group_lasso * group_lasso(student.network, doomed)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            student.mask_gradients()
            norm = nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
            if not math.isfinite(float(norm)):
                student.eval()
                raise TrainingError(
                    explain(
                        "fine-tuning",
                        expected="a finite loss",
                        got=f"loss {float(loss.detach()):g} after {seen} images",
                        remedy="lower the learning rate, or check the training data",
                    )
                )
            optimiser.step()
            seen += size(batch)
            if on_step is not None:
                on_step(min(1.0, max(progress, seen / config.images)))
    student.eval()
    return seen


def _task_loss(
    student: nn.Module, teacher: nn.Module, task: Task, distill: DistillConfig, batch: Batch
) -> Tensor:
    """Return the loss on a batch, the teacher's part included."""
    outputs = task.run(student, batch)
    loss = (1.0 - distill.kd_weight) * task.loss(outputs, batch)
    if distill.kd_weight > 0.0:
        with torch.no_grad():
            target = task.run(teacher, batch)
        loss = loss + distill.kd_weight * distillation_loss(outputs, target, distill.temperature)
    return loss


def _begin_steps(student: CompressedModel, task: Task, seed: int, device: str) -> None:
    """Make steps parameters; those of activations begin where calibration puts them."""
    if any(site.bits < 8 and quantiser.low is None for site, quantiser in student.sites()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batches = list(take(task.train, CALIBRATION_IMAGES, "train", device))
        settle(student, task, batches, batches, device=device, trained=True)
    student.learn_steps()


def _check_supported(distill: DistillConfig) -> None:
    """Refuse what this version would silently leave out."""
    if distill.feature_weight != 0.0:
        raise InvalidInputError(
            explain(
                "distillation",
                expected="feature_weight 0",
                got=f"{distill.feature_weight:g}",
                remedy="distil from logits",
            )
        )


def _training_batches(task: Task, images: int, device: str) -> Iterator[Batch]:
    """Yield training batches, epoch after epoch, for as long as is asked."""
    seen = 0
    while seen < images:
        before = seen
        for batch in task.train:
            yield place(batch, device)
            seen += size(batch)
            if seen >= images:
                return
        if seen == before:
            return


def _one_cycle(progress: float, warm_up: float) -> float:
    """Return the share of the peak rate: a linear rise, then a cosine to zero."""
    if progress < warm_up:
        return 0.1 + 0.9 * progress / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def _parameter_groups(model: CompressedModel, weight_decay: float) -> list[dict[str, object]]:
    trained = [p for p in model.network.parameters() if p.requires_grad]
    weights = [p for p in trained if p.dim() > 1]
    others = [*(p for p in trained if p.dim() <= 1), *model.steps.parameters()]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
