"""Integer weights and biases of quantised layers, batch norms folded in."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.transform.compressed import CompressedModel
from autocompress.transform.quantiser import TensorQuantiser
from autocompress.transform.weights import WeightLayout

INTEGER_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that have an integer kernel."""


MOST_STEPS = 2**31 - 2**11
"""Steps of a bias in int32 at most, less what scales in float32 are inexact by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldedLayer:
    """What one quantised layer multiplies with and adds.

    Attributes:
        codes: int8, shape of the weight.
        scales: float32, outputs x groups.
        layout: How scales go with the weight.
        bias: float32, one per output channel.
        bias_scales: float32 steps of an int32 bias, input scale times weight
            scale; None where no kernel computes the layer in integers: the
            input is not quantised, inputs do not share one scale, or there
            is none for layers of its kind.
    """

    codes: Tensor
    scales: Tensor
    layout: WeightLayout
    bias: Tensor
    bias_scales: Tensor | None

    @property
    def per_channel(self) -> bool:
        """Whether each position along one axis of the weight has one scale."""
        return self.scales.shape[1] == 1 and self.layout.transposed <= 1

    def bias_codes(self) -> Tensor | None:
        """Return the bias as int32, or None where it does not fit."""
        if self.bias_scales is None:
            return None
        codes = torch.round(self.bias.double() / self.bias_scales.double())
        limit = 2**31 - 1
        return codes.to(torch.int32) if bool((codes.abs() <= limit).all()) else None


def fold_layer(compressed: CompressedModel, name: str) -> FoldedLayer:
    """Compute the integers of a layer, with the batch norm after it folded in.

    Codes do not change size: a norm multiplies the scales of its channel, and a
    negative factor flips the signs, which a symmetric, narrow grid allows; a
    factor of zero clears the codes. Only where next to nothing is left of a
    channel beside its bias, its scale grows until the bias fits into 32 bits:
    codes then become smaller, and what that rounds away is less than 2^-24 of
    the bias for each input.

    Args:
        compressed: A calibrated model.
        name: A quantised layer.

    Returns:
        Its integers; the folded batch norm must then be skipped.
    """
    layer = compressed.network.get_submodule(name)
    quantised = compressed.quantised_weight(name)
    codes, scales, layout = quantised.codes, quantised.grid.scales, quantised.grid.layout
    own = getattr(layer, "bias", None)
    bias = torch.zeros_like(scales[:, 0]) if own is None else own.detach().float().clone()
    fold = compressed.record.plan.folds.get(name)
    if fold is not None:
        factor, shift = norm_affine(compressed.network.get_submodule(fold[0]))
        signs = factor.sign().to(torch.int8)
        codes = layout.unrows(layout.rows(codes) * signs[:, None])
        scales = scales * torch.where(factor == 0, 1.0, factor.abs())[:, None]
        bias = bias * factor + shift
    site = compressed.record.plan.inputs.get(name)
    quantiser = None if site is None else compressed.quantisers[site]
    steps = None
    whole = isinstance(layer, INTEGER_LAYERS) and scales.shape[1] == 1
    if isinstance(quantiser, TensorQuantiser) and whole:
        least = (bias.abs() / (MOST_STEPS * quantiser.scale)).unsqueeze(1)
        wider = scales.maximum(least)
        codes = layout.unrows(_coarser(layout.rows(codes), scales / wider))
        scales = wider
        steps = (scales[:, 0] * quantiser.scale).clamp_min(torch.finfo(torch.float32).tiny)
    return FoldedLayer(
        codes=codes, scales=scales.float(), layout=layout, bias=bias, bias_scales=steps
    )


def _coarser(codes: Tensor, shrunk: Tensor) -> Tensor:
    """Round codes to larger steps, of which the old ones are a fraction; the same where it is 1."""
    return torch.round(codes.double() * shrunk.double()).to(codes.dtype)


def norm_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the factor and shift that a batch norm applies per channel in eval mode."""
    mean, variance = norm.running_mean, norm.running_var
    if not (isinstance(mean, Tensor) and isinstance(variance, Tensor)):
        raise TypeError(f"{type(norm).__name__} has no running statistics")
    factor = torch.rsqrt(variance.detach().float() + float(norm.eps))  # type: ignore[arg-type]
    weight, bias = norm.weight, norm.bias
    if isinstance(weight, Tensor):
        factor = factor * weight.detach().float()
    shift = -mean.detach().float() * factor
    if isinstance(bias, Tensor):
        shift = shift + bias.detach().float()
    return factor, shift
