"""Settle a compressed model on whatever batches a caller has."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from autocompress.evaluation.proxy import settle
from autocompress.evaluation.splits import CALIBRATION_IMAGES, PROXY_IMAGES, take
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.inputs import ModelInputs
from autocompress.transform.compress import calibrate_grids
from autocompress.transform.compressed import CompressedModel

SEED = 0
"""Draws shuffling and augmentation of the batches that settle a model."""


def settle_on(
    compressed: CompressedModel,
    examples: ModelInputs,
    *,
    task: Task | None = None,
    calibration: Iterable[Batch] | None = None,
) -> None:
    """Bring batch norms and activation grids in line with what was cut and quantised.

    Args:
        compressed: Changed in place.
        examples: Inputs of one forward call; they set the grids when there is nothing better.
        task: Its `train` batches recalibrate batch norms, and set the grids
            when `calibration` does not.
        calibration: Batches for the activation grids.

    The caller's random state is left alone, and the same call sets the same grids.
    """
    if task is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            batches = list(take(task.train, PROXY_IMAGES, "train", "cpu"))
        grids = list(take(batches, CALIBRATION_IMAGES, "train", "cpu"))
        settle(compressed, task, batches, grids, exact=True)
    if not compressed.record.plan.sites:
        return
    if calibration is not None:
        calibrate_grids(compressed, calibration, _run_batch(task, examples))
    elif task is None:
        calibrate_grids(compressed, [examples.args or examples.kwargs], _run_batch(None, examples))


def _run_batch(task: Task | None, examples: ModelInputs) -> Callable[[nn.Module, Batch], object]:
    """Tell how to run a batch: as the task does, or on the arguments of the examples."""

    def run(model: nn.Module, batch: Batch) -> object:
        if task is not None:
            return task.run(model, batch)
        given = ModelInputs.of(batch)
        kwargs = {key: value for key, value in given.kwargs.items() if key in examples.kwargs}
        return model(*given.args[: len(examples.args)], **kwargs)

    return run
