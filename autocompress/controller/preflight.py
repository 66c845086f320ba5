"""What can be compressed in a model, what each cut could give, and how long a search takes."""

import time
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from autocompress.controller.finish import most_finalists
from autocompress.controller.run import MEMBER_SECONDS
from autocompress.controller.schedule import Schedule
from autocompress.controller.trials import EARLY_MEMBERS, PROMOTED_SHARE
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.training import TrainingConfig
from autocompress.cost.analytic import count_costs
from autocompress.evaluation.batches import count, spread
from autocompress.evaluation.original import frozen_copy
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import (
    CALIBRATION_IMAGES,
    PROXY_IMAGES,
    SENSITIVITY_IMAGES,
    check_splits,
    epoch_images,
    make_splits,
)
from autocompress.evaluation.task import Task
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.space.preset import SearchSpace

STEP_PASSES = 4.0
"""Time of a training step, in forward passes: the student's three, the teacher's one."""

TRIAL_PASSES = 1.5
"""Time of a proxy's pass over an image, as a multiple of the original's."""

CHECKED_IMAGES = 500
"""Images that tell whether the original is trained at all."""

MEASURING_SECONDS = 110.0
"""Seconds that profiling and measuring take where no minutes are budgeted, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """What one group at its strongest ratio, or one block, could give.

    Attributes:
        kind: "group" or "block".
        name: Name of the group or block.
        pruning_ratio: The strongest ratio that the space offers; 1 for a block.
        macs: Multiply-accumulates saved for one example.
        size_bytes: Bytes saved where every quantisable weight has 8 bits.
    """

    kind: Literal["group", "block"]
    name: str
    pruning_ratio: float
    macs: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Preflight(ModelGraph):
    """The structure of a model, and what a search of one space could make of it.

    What the space leaves out is listed with that reason.

    Attributes:
        macs: Multiply-accumulates of the whole model for one example.
        size_bytes: Its size with 8 bits per quantisable weight, as estimated.
        savings: What each group and block that the space varies could give.
            Nothing is said of accuracy.
        search_seconds: An estimate, from one timed forward pass, of how long
            a search takes; None where no budget was given.
        accuracy: Of the original on images spread over `val`; None without a task.
        accuracy_images: How many these were, `CHECKED_IMAGES` at most.
        commonest: Accuracy on them of always answering the commonest class; None where the
            metric is not "top1".
    """

    macs: int
    size_bytes: int
    savings: tuple[Saving, ...]
    search_seconds: float | None = None
    accuracy: float | None = None
    accuracy_images: int = 0
    commonest: float | None = None

    __hash__ = ModelGraph.__hash__


def check_model(
    model: nn.Module,
    example_inputs: object,
    space: SearchSpace,
    task: Task | None = None,
    budget: Budget | None = None,
    training: TrainingConfig | None = None,
) -> Preflight:
    """Trace a model, say what its parts could give, and try its task.

    Args:
        model: Any module; not changed.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        space: Which groups and blocks may be cut, and how far.
        task: Tried as a search would; with `budget`, tells how long one takes.
        budget: With `task`, likewise.
        training: Lengths of trainings; None for the defaults.

    Raises:
        InvalidInputError: If a search would refuse the task: a loader is
            empty or fails, or the model, the metric or the loss do not take
            its batches.
    """
    inputs = ModelInputs.of(example_inputs)
    original = frozen_copy(model, "cpu", inputs)
    if task is None:
        return report_on(trace(model, example_inputs), space)
    splits = make_splits(task, seed=0)
    check_splits(task, original, splits)
    graph = trace(model, example_inputs)
    batches = spread(splits.val, CHECKED_IMAGES)
    accuracy = score(original, task, batches)
    estimate = None
    if budget is not None:
        once = seconds_per_image(original, inputs)
        images = epoch_images(task)
        estimate = estimate_seconds(
            budget, graph, epoch_images=images, image_seconds=once, training=training
        )
    found = report_on(graph, space, estimate)
    return replace(
        found,
        accuracy=accuracy,
        accuracy_images=count(batches),
        commonest=task.commonest(batches),
    )


def report_on(
    graph: ModelGraph, space: SearchSpace, search_seconds: float | None = None
) -> Preflight:
    """Add to a structure what each of its parts could give.

    Args:
        graph: The structure.
        space: Says how far groups may be pruned and which blocks be dropped.
        search_seconds: See `estimate_seconds`.
    """
    config = LayerConfig(weight_bits=8, activation_bits=8)
    plain = Candidate(layers={layer.name: config for layer in graph.layers if layer.quantisable})
    whole = count_costs(graph, plain)

    def saving(
        kind: Literal["group", "block"], name: str, ratio: float, candidate: Candidate
    ) -> Saving:
        left = count_costs(graph, candidate)
        macs, size = (int(whole[cost] - left[cost]) for cost in ("macs", "size_bytes"))
        return Saving(kind=kind, name=name, pruning_ratio=ratio, macs=macs, size_bytes=size)

    groups = [
        saving("group", name, ratios[-1], replace(plain, pruning_ratios={name: ratios[-1]}))
        for name, ratios in space.group_choices(graph).items()
    ]
    blocks = [
        saving("block", name, 1.0, replace(plain, dropped_blocks=(name,)))
        for name in space.block_choices(graph)
    ]
    restricted = space.restrict(graph)
    structure: dict[str, Any] = {
        item.name: getattr(restricted, item.name) for item in fields(ModelGraph)
    }
    return Preflight(
        **structure,
        macs=int(whole["macs"]),
        size_bytes=int(whole["size_bytes"]),
        savings=(*groups, *blocks),
        search_seconds=search_seconds,
    )


def seconds_per_image(model: nn.Module, inputs: ModelInputs) -> float:
    """Time one forward pass, after one that warms up.

    Args:
        model: Put in eval mode by the caller.
        inputs: The arguments of the call.
    """
    with torch.inference_mode():
        for _ in range(2):
            started = time.perf_counter()
            model(*inputs.args, **inputs.kwargs)
            elapsed = time.perf_counter() - started
    return elapsed / inputs.batch_size


def estimate_seconds(
    budget: Budget,
    graph: ModelGraph,
    *,
    epoch_images: int,
    image_seconds: float,
    training: TrainingConfig | None = None,
) -> float:
    """Estimate how long a search takes, roughly: a factor of two off is usual.

    Args:
        budget: What may be spent; minutes are a limit.
        graph: Structure of the model; each of its parts is tried alone first.
        epoch_images: Training images of one epoch.
        image_seconds: Seconds of one forward pass per image.
        training: Lengths of trainings; None for the defaults.

    Returns:
        Seconds, those of finalists included.
    """
    limit = None if budget.minutes is None else 60.0 * budget.minutes
    if budget.trials is None:
        return float(limit or 0.0)
    training = training or TrainingConfig()
    schedule = Schedule(
        budget=budget,
        epoch_images=epoch_images,
        spent_before=0.0,
        short_epochs=training.short_epochs,
        full_epochs=training.full_epochs,
    )
    parts = len(graph.layers) + len(graph.groups) + len(graph.blocks)
    proxy = TRIAL_PASSES * (2 * PROXY_IMAGES + CALIBRATION_IMAGES)
    images = TRIAL_PASSES * parts * SENSITIVITY_IMAGES + budget.trials * proxy
    images += STEP_PASSES * PROMOTED_SHARE * budget.trials * schedule.short_images
    finalists = most_finalists(budget)
    images += STEP_PASSES * finalists * schedule.full_images
    members = 2 + EARLY_MEMBERS + finalists
    seconds = images * image_seconds + members * MEMBER_SECONDS + MEASURING_SECONDS
    return seconds if limit is None else limit
