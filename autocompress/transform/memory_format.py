"""Which order of axes a network may be trained in on this host."""

import torch
from torch import nn

LEAST_INPUTS = 8
"""Inputs from which on the weight gradients of strided 1x1 convolutions are sound everywhere."""


def sound_channels_last(network: nn.Module) -> bool:
    """Tell whether PyTorch computes the gradients of a channels-last network within its buffers.

    On processors without AVX-512, oneDNN as PyTorch 2.13 ships it writes
    beyond the weight gradient of a 1x1 convolution with a stride and fewer
    than `LEAST_INPUTS` inputs, and the process is aborted or worse (found
    with glibc's checks of the heap; other kernels, strides and widths, and
    the usual order of axes, pass them).

    Args:
        network: Any module; only its convolutions on the CPU count.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return True
    return not any(
        isinstance(layer, nn.Conv2d)
        and layer.weight.device.type == "cpu"
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels // layer.groups < LEAST_INPUTS
        for layer in network.modules()
    )


def keep_sound(network: nn.Module) -> nn.Module:
    """Return a network with its axes in the usual order if channels-last ones are not sound."""
    if not sound_channels_last(network):
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network
