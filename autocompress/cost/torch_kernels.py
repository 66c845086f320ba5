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
from autocompress.cost.kernel_key import WEIGHTLESS, KernelKey


class _Kernels(nn.Module):
    """One kernel several times, side by side; all is returned, so that a compiler keeps all."""

    def __init__(self, key: KernelKey, kernels: int, batch_size: int = 1) -> None:
        super().__init__()
        self.alone = key.kind in WEIGHTLESS
        made: list[nn.Module] = []
        for _ in range(kernels):
            if key.kind == "add":
                made.append(_Addition((key.out_channels, *key.size)))
                continue
            if key.kind in WEIGHTLESS:
                module = _Attention if key.kind == "attention" else _Pool
                made.append(module(key, kernel_input(key, batch_size)))
                continue
            if key.kind == "linear":
                made.append(nn.Linear(key.in_channels, key.out_channels))
                continue
            convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(key.kernel) - 1]
            made.append(
                convolution(
                    key.in_channels,
                    key.out_channels,
                    key.kernel,  # type: ignore[arg-type]
                    key.stride,  # type: ignore[arg-type]
                    _padding(key),  # type: ignore[arg-type]
                    groups=key.groups,
                )
            )
        self.layers = nn.ModuleList(made)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.alone:
            return [layer(x) for layer in self.layers]
        return [functional.relu(layer(x)) for layer in self.layers]


class _Addition(nn.Module):
    """Adds a tensor of its own, so that no two sums are the same."""

    summand: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("summand", torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.summand


class _Pool(nn.Module):
    """Pools a tensor of its own, so that no two results are the same."""

    taken: Tensor

    def __init__(self, key: KernelKey, shape: tuple[int, ...]) -> None:
        super().__init__()
        pools: dict[str, tuple[Callable[..., Tensor], ...]] = {
            "maxpool": (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
            "avgpool": (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d),
        }
        self.pool = pools[key.kind][len(key.size) - 1]
        self.window = (key.kernel, key.stride, _padding(key))
        self.register_buffer("taken", torch.rand(shape))

    def forward(self, _: Tensor) -> Tensor:
        return self.pool(self.taken, *self.window)


class _Attention(nn.Module):
    """Attends to keys and values of its own."""

    keys: Tensor
    values: Tensor

    def __init__(self, key: KernelKey, shape: tuple[int, ...]) -> None:
        super().__init__()
        for name in ("keys", "values"):
            self.register_buffer(name, torch.randn(*shape[:2], key.size[1], *key.kernel))

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, self.keys, self.values)


def _padding(key: KernelKey) -> tuple[int, ...]:
    pairs = zip(key.kernel, key.stride, strict=True)
    return tuple(max(k - s + 1, 0) // 2 for k, s in pairs)


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
        module, numbers = _Kernels(key, kernels, target.batch_size).eval(), torch.randn(shape)
    return TorchSession(module, [node], target).bind({"x": numbers.numpy()})


def kernel_input(key: KernelKey, batch_size: int) -> tuple[int, ...]:
    """Return the shape of what a kernel reads."""
    if key.kind == "linear":
        return (batch_size * math.prod(key.size), key.in_channels)
    if key.kind == "attention":
        return (batch_size, key.in_channels, key.size[0], *key.kernel)
    strides = tuple(1 for _ in key.size) if key.kind == "add" else key.stride
    spatial = (n * s for n, s in zip(key.size, strides, strict=True))
    return (batch_size, key.in_channels, *spatial)
