"""What a model shows on data, gathered in one pass, for criteria that need more than weights."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autocompress.core.seeds import derive_seed
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.attention import NarrowAttention
from autocompress.graph.recording import LAYER_TYPES
from autocompress.graph.structure import ModelGraph
from autocompress.transform.criteria.filters import input_rows

Batch = TypeVar("Batch")

ENTRIES = 1024
"""Output entries of each consumer that its inputs' contributions are kept of."""

ENTRIES_PER_EXAMPLE = 10
"""Most of them that one example gives (Luo et al. 2017 take ten locations per image)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was observed of one model; small, since it is summed up per channel at once.

    Attributes:
        saliency: Layer name to `batches x inputs` values, the sum of
            gradient x weight over the weights that read an input.
        curvature: Layer name to `inputs` values, half the sum of empirical
            Fisher x weight^2 over the weights that read an input.
        zeros: Layer name to `inputs` values, the fraction of its input that
            is exactly zero.
        contributions: Layer name to `entries x inputs` values, what each
            input channel adds to sampled entries of its output.
    """

    saliency: Mapping[str, Tensor] = field(default_factory=dict)
    curvature: Mapping[str, Tensor] = field(default_factory=dict)
    zeros: Mapping[str, Tensor] = field(default_factory=dict)
    contributions: Mapping[str, Tensor] = field(default_factory=dict)


def gather_evidence(
    model: nn.Module,
    graph: ModelGraph,
    batches: Sequence[Batch],
    run: Callable[[nn.Module, Batch], Any],
    loss: Callable[[Any, Batch], Tensor] | None = None,
    *,
    seed: int = 0,
) -> Evidence:
    """Observe a model on a few batches.

    Args:
        model: The original; a copy in eval mode is observed, so that batch
            norms use the statistics they will keep and the model stays as it is.
        graph: Its structure; only layers of prunable groups are observed.
        batches: The batches, at least one.
        run: Calls a model on one batch.
        loss: Scalar mean loss of its outputs on the batch's labels; None
            leaves out all that needs labels.
        seed: Draws the output entries.

    Raises:
        InvalidInputError: If there is no batch, or a gradient is not finite.
    """
    if not batches:
        raise InvalidInputError(
            explain(
                "pruning criterion",
                expected="at least one batch",
                got="none",
                remedy="give a loader that yields batches",
            )
        )
    probe = copy.deepcopy(model).eval()
    modules = dict(probe.named_modules())
    places = {(m.module, m.axis) for group in graph.groups if group.prunable for m in group.members}
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention) and (name, "out") in places:
            NarrowAttention.narrow(module, len(module.in_proj_weight))  # calls its out_proj
    consumers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, LAYER_TYPES) and (name, "in") in places
    }
    observer = _InputObserver(consumers, math.ceil(ENTRIES / len(batches)), seed)
    for module in consumers.values():
        module.get_parameter("weight").requires_grad_(True)
    gradients = _GradientObserver(consumers)
    try:
        for batch in batches:
            with torch.set_grad_enabled(loss is not None):
                outputs = run(probe, batch)
                if loss is not None:
                    gradients.observe(loss(outputs, batch), len(outputs))
    finally:
        observer.remove()
    return Evidence(
        saliency={name: torch.stack(found) for name, found in gradients.saliency.items()},
        curvature={n: total / gradients.batches for n, total in gradients.curvature.items()},
        zeros=observer.zeros(),
        contributions={name: torch.cat(found) for name, found in observer.contributions.items()},
    )


class _GradientObserver:
    """Sums up, input by input, what gradients say of the weights of layers."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        self.saliency: dict[str, list[Tensor]] = {}
        self.curvature: dict[str, Tensor] = {}
        self.batches = 0

    def observe(self, loss: Tensor, examples: int) -> None:
        weights = [layer.get_parameter("weight") for layer in self.layers.values()]
        found = torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()
        self.batches += 1
        for (name, layer), weight, gradient in zip(
            self.layers.items(), weights, found, strict=True
        ):
            if gradient is None:
                continue
            if not bool(torch.isfinite(gradient).all()):
                raise InvalidInputError(
                    explain(
                        f"gradient of '{name}'",
                        expected="finite values",
                        got="NaN or infinities",
                        remedy="check the loss and the data, or choose another criterion",
                    )
                )
            rows = input_rows(layer, gradient * weight.detach()).double()
            self.saliency.setdefault(name, []).append(rows.sum(dim=1))
            # The squared mean of a batch's gradients has 1/examples of their second moment.
            _add(self.curvature, name, 0.5 * examples * rows.square().sum(dim=1))


class _InputObserver:
    """Watches what layers read: zeros, and what each channel adds to their output."""

    def __init__(self, layers: Mapping[str, nn.Module], per_batch: int, seed: int) -> None:
        self.per_batch = per_batch
        self.generator = torch.Generator().manual_seed(derive_seed(seed, -1, "reconstruction"))
        self.zero_sums: dict[str, Tensor] = {}
        self.elements: dict[str, int] = {}
        self.contributions: dict[str, list[Tensor]] = {}
        self.hooks = [
            layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name, layer in layers.items()
        ]

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def zeros(self) -> dict[str, Tensor]:
        return {name: total / self.elements[name] for name, total in self.zero_sums.items()}

    def _hook(self, name: str) -> Callable[..., None]:
        def observe(
            layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]
        ) -> None:
            inputs = (*args, *kwargs.values())[0].detach()
            zeros = _per_channel(layer, (inputs == 0).float()).double().sum(dim=0)
            _add(self.zero_sums, name, zeros.cpu())
            self.elements[name] = self.elements.get(name, 0) + inputs.numel() // len(zeros)
            self.contributions.setdefault(name, []).append(self._contributions(layer, inputs))

        return observe

    def _contributions(self, layer: nn.Module, inputs: Tensor) -> Tensor:
        """Split sampled entries of a linear map's output among its input channels.

        An entry is linear in the input, so that a channel adds to it the
        channel's values times the gradients of the entry.
        """
        draws = min(ENTRIES_PER_EXAMPLE, math.ceil(self.per_batch / len(inputs)))
        inputs = inputs[: self.per_batch].clone().requires_grad_(True)
        parts = []
        with torch.enable_grad():
            outputs = layer.forward(inputs).flatten(1)
            for _ in range(draws):
                shape = (len(outputs), 1)
                entries = torch.randint(outputs.shape[1], shape, generator=self.generator)
                chosen = outputs.gather(1, entries.to(outputs.device)).sum()
                (gradient,) = torch.autograd.grad(chosen, inputs, retain_graph=True)
                parts.append(_per_channel(layer, (gradient * inputs).detach()).cpu())
        return torch.cat(parts)


def _add(sums: dict[str, Tensor], name: str, values: Tensor) -> None:
    sums[name] = sums[name] + values if name in sums else values


def _per_channel(layer: nn.Module, values: Tensor) -> Tensor:
    """Sum an input of a layer over all axes but examples and channels."""
    channels_last = isinstance(layer, nn.Linear)
    by_channel = values.movedim(-1, 1) if channels_last and values.dim() > 2 else values
    return by_channel.flatten(2).sum(dim=2) if by_channel.dim() > 2 else by_channel
