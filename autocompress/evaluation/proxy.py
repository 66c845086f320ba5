"""Fidelity 0: recalibrate, calibrate and score a compressed model without training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocompress.core.quantisation import GPTQ, QuantisationConfig
from autocompress.evaluation.batches import size
from autocompress.evaluation.outputs import OutputForm
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.splits import ROUNDING_IMAGES, take
from autocompress.evaluation.task import Batch, Task
from autocompress.transform.compress import calibrate_grids
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.rounding import round_weights


def recalibrate_batch_norms(
    model: nn.Module, task: Task, batches: Sequence[Batch], *, device: str = "cpu"
) -> None:
    """Replace batch-norm statistics by the average over fixed batches.

    Only the batch norms run in training mode (Yu and Huang 2019; 2,000 images
    as in Once-for-All, Cai et al. 2020). Batches count alike, so that the last one is left
    out if it has less than half of the largest's examples. Call it with grids switched off.

    Args:
        model: Changed in place; ends in eval mode.
        task: Tells how to run a batch.
        batches: Training batches.
        device: Torch device name.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    ends_short = 2 * size(batches[-1]) < max(map(size, batches))
    with torch.no_grad(), arithmetic(device):
        for batch in batches[:-1] if ends_short else batches:
            task.run(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def settle(
    model: CompressedModel,
    task: Task,
    recalibration: Sequence[Batch],
    calibration: Sequence[Batch],
    *,
    device: str = "cpu",
    exact: bool = False,
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
    trained: bool = False,
) -> None:
    """Bring a model's batch norms and grids in line with its weights.

    Batch norms are left alone where neither structure, masks nor narrow weights have
    changed what they see: 2,000 images know their statistics less well.

    Args:
        model: Changed in place; ends in eval mode with all grids on.
        task: Tells how to run a batch.
        recalibration: Training batches for the batch norms.
        calibration: Training batches for the activation grids.
        device: Torch device name.
        exact: Calibrate in float32, as the artifact will run.
        quantisation: How ranges are chosen and weights are rounded.
        trained: Whether the weights were trained on their grids, so that
            they are rounded to the nearest.
    """
    record = model.record
    changed = bool(record.cuts or record.dropped_blocks or record.sparse)
    narrow = any(bits < 8 for bits in record.quantised.values())

    model.quantise_weights = model.quantise_activations = False
    if narrow and not trained and quantisation.rounding == GPTQ:
        if changed:
            recalibrate_batch_norms(model, task, recalibration, device=device)
        with arithmetic(device):
            batches = take(calibration, ROUNDING_IMAGES, "train", device)
            round_weights(model, batches, task.run)
    model.quantise_weights = narrow
    if changed or narrow:
        recalibrate_batch_norms(model, task, recalibration, device=device)
    model.quantise_weights = model.quantise_activations = True
    if record.plan.sites:
        with arithmetic(device, low_precision=not exact):
            calibrate_grids(model, calibration, task.run, quantisation.observer)


def score(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    *,
    device: str = "cpu",
    low_precision: bool = True,
) -> float:
    """Return the metric of a model over batches, a fraction in [0, 1]."""
    model.eval()
    total, examples = 0.0, 0
    with torch.inference_mode(), arithmetic(device, low_precision=low_precision):
        for batch in batches:
            batch_total, batch_examples = task.score(task.run(model, batch), batch)
            total += batch_total
            examples += batch_examples
    return total / examples


def output_form(model: nn.Module, task: Task, batch: Batch) -> OutputForm:
    """Return what a model's outputs stand for, as they are on a batch."""
    with torch.inference_mode():
        return task.form(task.run(model, batch), batch)


def predictions(
    model: nn.Module, task: Task, batches: Sequence[Batch], *, device: str = "cpu"
) -> Tensor:
    """Return what a model says over batches, as `OutputForm.describe` puts it."""
    model.eval()
    rows = []
    with torch.inference_mode(), arithmetic(device):
        for batch in batches:
            outputs = task.run(model, batch)
            rows.append(task.form(outputs, batch).describe(outputs))
    return torch.cat(rows)
