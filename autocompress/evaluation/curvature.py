"""How much rounding a layer's weights should cost, from the curvature of the predictions."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autocompress.evaluation.batches import size
from autocompress.evaluation.outputs import OutputForm
from autocompress.transform.compressed import CompressedModel

Batch = TypeVar("Batch")

PROBES = 4
"""Random vectors per batch."""


def hessian_traces(
    model: nn.Module,
    layers: Iterable[str],
    batches: Sequence[Batch],
    run: Callable[[nn.Module, Batch], Tensor],
    *,
    seed: int,
    form: OutputForm = OutputForm(),  # noqa: B008  frozen
) -> dict[str, float]:
    """Estimate the trace of the Hessian for the weight of each layer.

    Hutchinson's estimator with signs at random, as in HAWQ-V2 (Dong et al.
    2020), but of the divergence of the predictions from the model's own, so
    that no labels are needed and nothing is negative in expectation.

    Args:
        model: In eval mode; not changed.
        layers: Names of layers.
        batches: What `run` takes, one at a time.
        run: Calls the model on one batch; returns its outputs.
        seed: Draws the signs.
        form: What the outputs stand for.

    Returns:
        Traces in nats per squared unit of weight, by layer; 0 where the outputs
        do not depend on one.
    """
    copied = copy.deepcopy(model)
    names = list(layers)
    weights = [copied.get_submodule(name).get_parameter("weight") for name in names]
    for weight in weights:
        weight.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    sums, examples = [0.0] * len(names), 0
    for batch in batches:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            rows = form.describe(run(copied, batch))
        loss = form.divergence(rows.detach(), rows)
        found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        used = [at for at, gradient in enumerate(found) if gradient is not None]
        for probe in range(PROBES if used else 0):
            signs = [_signs(weight, generator) for weight in weights]
            products = torch.autograd.grad(
                [found[at] for at in used],
                [weights[at] for at in used],
                [signs[at] for at in used],
                retain_graph=probe + 1 < PROBES,
                allow_unused=True,
                materialize_grads=True,
            )
            for at, product in zip(used, products, strict=True):
                sums[at] += float((signs[at] * product).sum()) * size(batch) / PROBES
        examples += size(batch)
    return {name: total / examples for name, total in zip(names, sums, strict=True)}


def rounding_damage(model: CompressedModel, traces: dict[str, float]) -> float:
    """Estimate the divergence that the weight grids below 8 bits cause.

    Half of the mean curvature times the squared rounding error, summed over layers
    (Dong et al. 2020).

    Args:
        model: A compressed model.
        traces: As `hessian_traces` returns them, of the original's layers.

    Returns:
        Nats.
    """
    damage = 0.0
    for name, bits in model.record.quantised.items():
        if bits < 8:
            weight = model.network.get_submodule(name).get_parameter("weight").detach()
            error = float((model.quantised_weight(name).values() - weight).square().sum())
            damage += 0.5 * max(traces[name], 0.0) / weight.numel() * error
    return damage


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, weight.shape, generator=generator)
    return (2 * drawn - 1).to(weight.device, weight.dtype)
