"""The filters of a layer: what produces one output each."""

import torch
from torch import Tensor, nn

from autocompress.graph.recording import LAYER_TYPES


def filter_key(module: nn.Module, axis: str) -> str:
    """Name the weight that produces the channels along an axis of a module; "" if none does.

    Args:
        module: The module.
        axis: One of its axes, as group members name them.

    Example:
        >>> filter_key(nn.Linear(2, 3), "out"), filter_key(nn.Linear(2, 3), "in")
        ('weight', '')
        >>> filter_key(nn.MultiheadAttention(4, 2), "out"), filter_key(nn.LayerNorm(4), "out")
        ('in_proj_weight', '')
    """
    if isinstance(module, nn.MultiheadAttention):
        return "in_proj_weight" if axis == "out" else ""
    if isinstance(module, nn.Embedding):
        return "weight" if axis == "weight:1" else ""
    return "weight" if axis == "out" and isinstance(module, LAYER_TYPES) else ""


def filters_first(module: nn.Module, weight: Tensor) -> Tensor:
    """View a weight with its filters along the first axis.

    A dense transposed convolution holds its inputs first, and an embedding its
    words, all others their outputs; a depthwise one holds one filter per
    channel either way.

    Args:
        module: The layer.
        weight: Its weight, or something of that shape, such as its gradient.
    """
    transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
    if isinstance(module, nn.Embedding) or (transposed and module.groups == 1):
        return weight.transpose(0, 1)
    return weight


def filter_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """Lay a weight out with one filter per row.

    Args:
        module: The layer.
        weight: Its weight, or something of that shape, such as its gradient.

    Returns:
        `outputs x weights per filter`, float32 on the CPU.

    Example:
        >>> filter_rows(nn.ConvTranspose2d(2, 5, 3), torch.zeros(2, 5, 3, 3)).shape
        torch.Size([5, 18])
    """
    return filters_first(module, weight).to("cpu", torch.float32).flatten(1)


def input_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """Lay the weight of a convolution or linear layer out with one input per row.

    Args:
        module: The layer.
        weight: Its weight, or something of that shape, such as its gradient.

    Returns:
        `inputs x weights that read each`, float32 on the CPU.

    Example:
        >>> input_rows(nn.Conv2d(4, 6, 3, groups=2), torch.zeros(6, 2, 3, 3)).shape
        torch.Size([4, 27])
    """
    weight = weight.to("cpu", torch.float32)
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.transposed:
            return weight.flatten(1)
        by_group = weight.reshape(module.groups, -1, *weight.shape[1:])
        return by_group.transpose(1, 2).flatten(0, 1).flatten(1)
    return weight.transpose(0, 1)
