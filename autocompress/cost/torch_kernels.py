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
    """One kernel several times: layers side by side, additions one after the other."""

    def __init__(self, key: KernelKey, kernels: int) -> None:
        super().__init__()
        self.kind, self.count = key.kind, kernels
        made: list[nn.Module] = []
        for _ in range(kernels if key.kind != "add" else 0):
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

    def forward(self, x: Tensor) -> Tensor:
        result = x
        for layer in self.layers:
            result = functional.relu(layer(x))
        for _ in range(self.count if self.kind == "add" else 0):
            result = functional.relu(result + x)
        return result


def kernel_call(key: KernelKey, kernels: int, target: Target) -> Callable[[], object]:
    """Return a call that runs one kernel several times on random numbers.

    Args:
        key: The kernel, in floating point.
        kernels: How often it runs, >= 1.
        target: The runtime, its threads and batch size.
    """
    size = target.batch_size
    if key.kind == "linear":
        shape: tuple[int, ...] = (size * math.prod(key.size), key.in_channels)
    else:
        strides = key.stride or tuple(1 for _ in key.size)
        spatial = tuple(n * s for n, s in zip(key.size, strides, strict=True))
        shape = (size, key.in_channels, *spatial)
    generator = torch.Generator().manual_seed(derive_seed(0, -1, str(key)) % 2**31)
    node = InputNode(name="x", type="tensor(float)", shape=shape)
    session = TorchSession(_Kernels(key, kernels).eval(), [node], target)
    return session.bind({"x": torch.randn(shape, generator=generator).numpy()})
