"""Run models in the fastest arithmetic that does not change what is learned."""

import contextlib
from collections.abc import Iterator

import torch


def bfloat16_is_fast(device: str) -> bool:
    """Tell whether a device multiplies bfloat16 natively."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def arithmetic(device: str, *, low_precision: bool = True) -> Iterator[None]:
    """Enter bfloat16 autocast where the device is fast at it.

    Args:
        device: Torch device name.
        low_precision: False keeps float32 everywhere.
    """
    kind = torch.device(device).type
    enabled = low_precision and bfloat16_is_fast(device)
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled):
        yield
