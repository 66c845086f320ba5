"""The filters of a layer: what produces one output each."""

import torch
from torch import Tensor, nn


def filter_rows(module: nn.Module, weight: Tensor) -> Tensor:
    """Lay a weight out with one filter per row.

    A dense transposed convolution holds its inputs first, all others their
    outputs; a depthwise one holds one filter per channel either way.

    Args:
        module: The layer.
        weight: Its weight, or something of that shape, such as its gradient.

    Returns:
        `outputs x weights per filter`, float32 on the CPU.

    Example:
        >>> filter_rows(nn.ConvTranspose2d(2, 5, 3), torch.zeros(2, 5, 3, 3)).shape
        torch.Size([5, 18])
    """
    transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
    if transposed and module.groups == 1:
        weight = weight.transpose(0, 1)
    return weight.to("cpu", torch.float32).flatten(1)
