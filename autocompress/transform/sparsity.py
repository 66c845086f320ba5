"""Masks that set single weights to zero, the smallest ones first."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from autocompress.core.candidate import Candidate
from autocompress.core.sparsity import kept_weights, parse_pattern
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.weights import WeightLayout


def keep_mask(weight: Tensor, sparsity: float, pattern: str) -> Tensor:
    """Choose the weights that stay, by magnitude (Han et al. 2015).

    Args:
        weight: Outputs, inputs, any further axes.
        sparsity: Fraction set to zero, [0, 1).
        pattern: "unstructured", or "N:M": the N largest of every M
            neighbours along the inputs stay (Mishra et al. 2021), and so do
            up to M - 1 inputs at the end.

    Returns:
        Booleans of the weight's shape, True where a weight stays. Of equal
        magnitudes, the later ones stay.

    Example:
        >>> keep_mask(torch.tensor([[0.5, -3.0, 1.0, 2.0]]), 0.5, "2:4")
        tensor([[False,  True, False,  True]])
    """
    sizes = weight.detach().abs()
    parsed = parse_pattern(pattern)
    if parsed is not None:
        stay, of = parsed
        keep = torch.ones_like(sizes, dtype=torch.bool).movedim(1, -1)
        whole = sizes.shape[1] // of * of
        inputs_last = sizes.movedim(1, -1)
        sets = inputs_last[..., :whole].reshape(*inputs_last.shape[:-1], whole // of, of)
        order = sets.argsort(dim=-1, stable=True)
        chosen = torch.ones_like(sets, dtype=torch.bool)
        keep[..., :whole] = chosen.scatter(-1, order[..., : of - stay], False).flatten(-2)
        return keep.movedim(-1, 1).contiguous()
    kept = kept_weights(tuple(sizes.shape), sparsity, pattern)
    keep = torch.ones(sizes.numel(), dtype=torch.bool, device=sizes.device)
    keep[sizes.flatten().argsort(stable=True)[: sizes.numel() - kept]] = False
    return keep.reshape(sizes.shape)


def sparse_layers(network: nn.Module, candidate: Candidate) -> dict[str, int]:
    """Count the weights that stay in every layer which a candidate makes sparse.

    Args:
        network: The network, its channels cut.
        candidate: The candidate, canonical.
    """
    counts = {}
    for name, config in candidate.layers.items():
        if config.sparsity > 0.0:
            layout = WeightLayout.of(network.get_submodule(name))
            shape = (layout.outputs, layout.inputs, math.prod(layout.shape[2:]))
            counts[name] = kept_weights(shape, config.sparsity, config.sparsity_pattern)
    return counts


def mask_smallest(compressed: CompressedModel, layers: Iterable[str] | None = None) -> None:
    """Mask the smallest weights of sparse layers; what is zero goes first.

    Args:
        compressed: Its weights and masks are changed in place.
        layers: Names of sparse layers; None for all of them.
    """
    for name in compressed.record.sparse if layers is None else layers:
        config = compressed.record.candidate.layer(name)
        module = compressed.network.get_submodule(name)
        layout = WeightLayout.of(module)
        rows = layout.rows(module.get_parameter("weight"))
        by_input = rows.reshape(layout.outputs, layout.inputs, -1)
        mask = keep_mask(by_input, config.sparsity, config.sparsity_pattern)
        compressed.set_mask(name, layout.unrows(mask.flatten(1)))
