"""Compress and settle a model on whatever batches a caller has."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from autocompress.artifact.saturation import resolve_range
from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import GPTQ, QuantisationConfig
from autocompress.core.target import CHANNEL_UNIT, TARGET_NAMES, Target
from autocompress.evaluation.proxy import settle
from autocompress.evaluation.splits import (
    CALIBRATION_IMAGES,
    PROXY_IMAGES,
    SENSITIVITY_IMAGES,
    take,
)
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.structure import ModelGraph
from autocompress.transform.allocation import allocate_globally
from autocompress.transform.compress import calibrate_grids, check_runnable, compress_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.criteria import Evidence, gather_evidence
from autocompress.transform.ranks import Ranks
from autocompress.transform.rounding import round_weights

SEED = 0
"""Draws shuffling and augmentation of the batches that settle a model."""


def settle_on(
    compressed: CompressedModel,
    examples: ModelInputs,
    *,
    task: Task | None = None,
    calibration: Iterable[Batch] | None = None,
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
) -> None:
    """Bring batch norms and grids in line with what was cut and quantised.

    The caller's random state is left alone, and the same call sets the same grids.

    Args:
        compressed: Changed in place.
        examples: Inputs of one forward call; they set the grids when there is
            nothing better.
        task: Its `train` batches recalibrate batch norms, and are what
            calibration sees when `calibration` is not given.
        calibration: Batches for the activation grids and the rounding of
            weights; these are rounded to the nearest where there is no data.
        quantisation: How ranges are chosen and weights are rounded.
    """
    given = None if calibration is None else list(calibration)
    if task is not None:
        batches = _training_batches(task, PROXY_IMAGES)
        if given is None:
            given = list(take(batches, CALIBRATION_IMAGES, "train", "cpu"))
        settle(compressed, task, batches, given, exact=True, quantisation=quantisation)
        return
    run = _run_batch(None, examples)
    if compressed.record.plan.sites:
        observed = [examples] if given is None else given
        calibrate_grids(compressed, observed, run, quantisation.observer)
    if given is not None and quantisation.rounding == GPTQ:
        round_weights(compressed, given, run)


def compress_on(
    model: nn.Module,
    graph: ModelGraph,
    candidate: Candidate,
    examples: ModelInputs,
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
    *,
    task: Task | None = None,
    calibration: Iterable[Batch] | None = None,
    target: Target | None = None,
    pruning_ratio: float | None = None,
) -> CompressedModel:
    """Compress and settle a copy of a model on whatever data there is.

    Args:
        model: The original; not changed.
        graph: Its structure.
        candidate: What to do.
        examples: Inputs of one forward call.
        quantisation: As for `settle_on`.
        task: As for `settle_on`; its `train` batches and its loss are also
            what criteria read. Without it, nothing is known that needs labels.
        calibration: As for `settle_on`; without a task, what criteria read
            that need inputs, or else the examples are.
        target: What runs the activation bits, and tells in which unit
            channels move; None for any.
        pruning_ratio: What all groups together lose; see `allocate_globally`.
    """
    if target is not None:
        check_runnable(candidate, target)
    quantisation = resolve_range(quantisation, target or Target.named(TARGET_NAMES[0]))
    batches = None if calibration is None else list(calibration)

    def gather() -> Evidence:
        if task is not None:
            training = _training_batches(task, SENSITIVITY_IMAGES)
            loss = task.loss_on(training)
            return gather_evidence(model, graph, training, task.run, loss, seed=SEED)
        given = [examples] if batches is None else batches
        return gather_evidence(model, graph, given, _run_batch(None, examples), seed=SEED)

    ranks = Ranks(model, graph, gather=gather, seed=SEED)
    if pruning_ratio is not None:
        unit = CHANNEL_UNIT if target is None else target.round_to
        candidate = allocate_globally(ranks, candidate, pruning_ratio, unit)
    inputs = (examples.args, examples.kwargs)
    compressed = compress_model(
        model, graph, candidate, inputs, ranks=ranks, quantisation=quantisation
    )
    settle_on(compressed, examples, task=task, calibration=batches, quantisation=quantisation)
    return compressed


def _training_batches(task: Task, images: int) -> list[Batch]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return list(take(task.train, images, "train", "cpu"))


def _run_batch(task: Task | None, examples: ModelInputs) -> Callable[[nn.Module, Batch], object]:
    """Tell how to run a batch: as the task does, or on the arguments of the examples."""

    def run(model: nn.Module, batch: Batch) -> object:
        if task is not None:
            return task.run(model, batch)
        given = ModelInputs.of(batch)
        kwargs = {key: value for key, value in given.kwargs.items() if key in examples.kwargs}
        return model(*given.args[: len(examples.args)], **kwargs)

    return run
