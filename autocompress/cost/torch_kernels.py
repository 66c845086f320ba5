"""Kernels as PyTorch runs them, to be timed where the target is PyTorch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.artifact.runtime import InputNode
from autocompress.artifact.torch_session import TorchSession
from autocompress.core.seeds import derive_seed
from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey


class _Kernels(nn.Module):
    """One kernel several times, side by side; all is returned, so that a compiler keeps all."""

    def __init__(self, key: KernelKey, kernels: int) -> None:
        super().__init__()
        made: list[nn.Module] = []
        for _ in range(kernels):
            if key.kind == "add":
                made.append(_Addition((key.out_channels, *key.size)))
                continue
            if key.kind == "linear":
                made.append(nn.Linear(key.in_channels, key.out_channels))
                continue
            convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(key.kernel) - 1]
            pairs = zip(key.kernel, key.stride, strict=True)
            padding = tuple(max(k - s + 1, 0) // 2 for k, s in pairs)
            made.append(
                convolution(
                    key.in_channels,
                    key.out_channels,
                    key.kernel,  # type: ignore[arg-type]
                    key.stride,  # type: ignore[arg-type]
                    padding,  # type: ignore[arg-type]
                    groups=key.groups,
                )
            )
        self.layers = nn.ModuleList(made)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [functional.relu(layer(x)) for layer in self.layers]


class _Addition(nn.Module):
    """Adds a tensor of its own, so that no two sums are the same."""

    summand: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("summand", torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.summand


def kernel_call(key: KernelKey, kernels: int, target: Target) -> Callable[[], object]:
    """Return a call that runs one kernel several times on random numbers, and returns all results.

    Args:
        key: The kernel, in floating point.
        kernels: How often it runs, >= 1.
        target: The runtime, its threads and batch size.
    """
    shape = kernel_input(key, target.batch_size)
    node = InputNode(name="x", type="tensor(float)", shape=shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, -1, str(key)) % 2**31)
        module, numbers = _Kernels(key, kernels).eval(), torch.randn(shape)
    return TorchSession(module, [node], target).bind({"x": numbers.numpy()})


def kernel_input(key: KernelKey, batch_size: int) -> tuple[int, ...]:
    """Return the shape of what a kernel reads."""
    if key.kind == "linear":
        return (batch_size * math.prod(key.size), key.in_channels)
    strides = key.stride if key.kind == "conv" else tuple(1 for _ in key.size)
    spatial = (n * s for n, s in zip(key.size, strides, strict=True))
    return (batch_size, key.in_channels, *spatial)
