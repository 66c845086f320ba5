"""Penalties that drive channels to zero before they are cut."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocompress.transform.criteria.filters import filter_key, filters_first
from autocompress.transform.record import Cut


def norm_scales_l1(network: nn.Module, doomed: Sequence[Cut]) -> Tensor:
    """Sum the sizes of the batch-norm scales of channels that will be cut.

    The penalty of Network Slimming (Liu et al. 2017, equation 1).

    Args:
        network: The network, still with those channels.
        doomed: What will be cut from it.

    Returns:
        A scalar; zero where no batch norm is cut.
    """
    terms = []
    for cut in doomed:
        module = network.get_submodule(cut.module)
        scale = getattr(module, "weight", None)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and scale is not None:
            terms.append(scale[_positions(cut, scale)].abs().sum())
    return _total(terms)


def group_lasso(network: nn.Module, doomed: Sequence[Cut]) -> Tensor:
    """Sum the Euclidean norms of filters and channels that will be cut.

    The filter-wise and channel-wise group lasso of structured sparsity
    learning (Wen et al. 2016, equation 2).

    Args:
        network: The network, still with those channels.
        doomed: What will be cut from it.

    Returns:
        A scalar; zero where no convolution or linear layer is cut.
    """
    terms = []
    for cut in doomed:
        module = network.get_submodule(cut.module)
        key = filter_key(module, "out" if cut.axis == "in" else cut.axis)
        if not key:
            continue
        filters = filters_first(module, module.get_parameter(key))
        rows = filters.transpose(0, 1) if cut.axis == "in" else filters
        if len(rows) == cut.size:  # the inputs of depthwise layers are cut with their outputs
            chosen = rows[_positions(cut, rows)].flatten(1)
            terms.append(torch.linalg.vector_norm(chosen, dim=1).sum())
    return _total(terms)


def _positions(cut: Cut, like: Tensor) -> Tensor:
    return torch.tensor(cut.removed, device=like.device)


def _total(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else torch.zeros(())
