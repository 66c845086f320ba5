"""Candidate and model in, compressed model out."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import DEFAULT_OBSERVER, ON, QuantisationConfig
from autocompress.core.target import FLOAT, Target
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.operations import Inputs
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import removed_channels
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.discovery import discover_plan
from autocompress.transform.plans import Plans
from autocompress.transform.ranks import Ranks
from autocompress.transform.record import SurgeryRecord
from autocompress.transform.sparsity import mask_smallest, sparse_layers
from autocompress.transform.surgery import cut_model, plan_cuts

Batch = TypeVar("Batch")


def compress_model(
    model: nn.Module,
    graph: ModelGraph,
    candidate: Candidate,
    inputs: Inputs,
    *,
    ranks: Ranks | None = None,
    plans: Plans | None = None,
    final: Candidate | None = None,
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
) -> CompressedModel:
    """Cut a copy of a model and plan its grids; activations are not calibrated.

    Args:
        model: The original; its state, mode and outputs stay as they are.
        graph: Its structure.
        candidate: What to do; made canonical first. The record keeps the
            pruning ratios as achieved after rounding.
        inputs: Positional and keyword arguments of one forward call.
        ranks: Orders the channels of the model; None ranks them by its
            weights alone.
        plans: Plans the grids of its candidates; None runs the cut model.
        final: What the candidate is a stage on the way to; see `plan_cuts`.
        quantisation: Where grids go, where `plans` do not decide, and how far weights reach.

    Returns:
        The compressed model in eval mode.

    Raises:
        InvalidInputError: If the candidate names what the model does not
            have, or asks for what this version cannot do.
    """
    achieved = {
        name: removed_channels(group, ratio) / group.channels
        for name, ratio in candidate.pruning_ratios.items()
        for group in (graph.group(name),)
    }
    candidate = replace(candidate, pruning_ratios=achieved).canonical()
    for name, config in candidate.layers.items():
        layer = graph.layer(name)
        if not layer.quantisable and (config.weight_bits != FLOAT or config.sparsity > 0.0):
            raise InvalidInputError(
                explain(
                    f"layer '{name}'",
                    expected="a quantisable layer",
                    got=layer.reason,
                    remedy="leave it out of layers",
                )
            )
        if config.weight_bits == 1 and config.sparsity > 0.0:
            raise InvalidInputError(
                explain(
                    f"layer '{name}'",
                    expected="sparsity 0 with 1 weight bit, which has no zero",
                    got=config.sparsity,
                    remedy="choose 2 bits, or no sparsity",
                )
            )
    cuts = plan_cuts(model, graph, candidate, ranks, final)
    network = cut_model(model, candidate.dropped_blocks, cuts, graph.branches).eval()
    record = SurgeryRecord(
        candidate=candidate,
        dropped_blocks=candidate.dropped_blocks,
        branches=tuple(name for name in candidate.dropped_blocks if name in graph.branches),
        cuts=cuts,
        quantised=candidate.weight_bits(),
        plan=discover_plan(network, inputs, candidate.layers, quantisation)
        if plans is None
        else plans.plan(network, candidate),
        sparse=sparse_layers(network, candidate),
        reduced=quantisation.reduce_range == ON,
    )
    compressed = CompressedModel(network, record)
    mask_smallest(compressed)
    return compressed


def check_runnable(candidate: Candidate, target: Target) -> None:
    """Refuse activation bits that a target does not execute.

    Raises:
        InvalidInputError: With the layer and what the target has.
    """
    for name, config in candidate.layers.items():
        if config.activation_bits not in (*target.activation_bits, FLOAT):
            raise InvalidInputError(
                explain(
                    f"layer '{name}' on {target.name}",
                    expected=f"activation bits among {list(target.activation_bits)}",
                    got=config.activation_bits,
                    remedy="choose other bits or another target",
                )
            )


def rebuild_model(model: nn.Module, record: SurgeryRecord) -> CompressedModel:
    """Repeat a recorded surgery on a model of the original architecture.

    Args:
        model: Any weights; untouched.
        record: The record of the surgery.

    Returns:
        A compressed model of the recorded shape, to load weights into.
    """
    network = cut_model(model, record.dropped_blocks, record.cuts, record.branches)
    return CompressedModel(network.eval(), record)


def calibrate_grids(
    compressed: CompressedModel,
    batches: Iterable[Batch],
    run: Callable[[nn.Module, Batch], object],
    observer: str = DEFAULT_OBSERVER,
) -> None:
    """Set the activation grids from the values that batches produce.

    Grids with learned steps stay as they are.

    Args:
        compressed: Changed in place; put in eval mode.
        batches: What `run` takes, one at a time.
        run: Calls the model on one batch.
        observer: How ranges are chosen, one of `OBSERVERS`.

    Raises:
        InvalidInputError: If there is no batch, values are not finite, or a
            grid saw none, since the forward pass depends on its data.
    """
    compressed.eval()
    compressed.reset_grids()
    seen = 0
    with torch.no_grad(), compressed.observing(observer):
        for batch in batches:
            run(compressed, batch)
            seen += 1
    if seen == 0:
        raise InvalidInputError(
            explain(
                "calibration",
                expected="at least one batch",
                got="none",
                remedy="give a loader that yields batches",
            )
        )
    unseen = [site.name for site, quantiser in compressed.sites() if quantiser.low is None]
    if unseen:
        raise InvalidInputError(
            explain(
                "calibration",
                expected="values for every activation grid",
                got=f"none for {len(unseen)} of them, such as '{unseen[0]}'",
                remedy="run the same operations on every batch, or keep activations at 32 bits",
            )
        )
