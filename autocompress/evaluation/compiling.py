"""Models in compiled code, for trainings that are long enough to wait for the compiler."""

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autocompress.core.recipe import Recipe
from autocompress.evaluation.precision import bfloat16_is_fast

LONG_SECONDS = 400.0
"""Time of a training from which on compiling pays; it takes about a minute for each model.

A step of ResNet-20 then takes 133 ms for 193 in bfloat16. In float32 without AVX-512 it is the
convolutions that take the time, and little is gained (824 ms for 890).
"""

COMPILERS = ("g++", "clang++", "c++")
"""Programs of which one makes code for the CPU, unless `CXX` names another."""


def worth_compiling(recipe: Recipe, seconds: float | None, device: str) -> bool:
    """Tell whether a training runs in compiled code.

    Args:
        recipe: Says "on", "off", or "auto": where the time is limited to
            `LONG_SECONDS` or more; a CPU must be fast in bfloat16 and have a compiler.
        seconds: Limit of the training's time; None for none.
        device: Torch device name.
    """
    if recipe.compile != "auto":
        return recipe.compile == "on"
    if seconds is None or seconds < LONG_SECONDS:
        return False
    return torch.device(device).type != "cpu" or (bfloat16_is_fast(device) and has_compiler())


def has_compiler() -> bool:
    """Tell whether there is a program that makes code for the CPU."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named,) if named else COMPILERS))


class Compiled(nn.Module):
    """A model that runs in compiled code on batches of one size, and as it is on others.

    The code is made when the first batch of that size comes. Where it cannot be made, one warning
    says why, and the model runs as it is from then on.

    Args:
        model: Not changed; its weights are shared.
        batch_size: The size of a whole batch.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.model, self.batch_size = model, batch_size
        self._code: Callable[..., Any] | None = None
        self._given_up = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        values = (*args, *kwargs.values())
        tensors = (v for v in values if isinstance(v, torch.Tensor) and v.dim())
        if self._given_up or len(next(tensors, ())) != self.batch_size:
            return self.model(*args, **kwargs)
        if self._code is not None:
            return self._code(*args, **kwargs)
        try:
            code: Callable[..., Any] = torch.compile(self.model, dynamic=False)
            outputs = code(*args, **kwargs)
        except Exception as error:
            outputs = self.model(*args, **kwargs)  # raises again what is the model's own fault
            self._given_up = True
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            warnings.warn(
                f"training runs without compiled code: {type(error).__name__}: {reason}",
                stacklevel=2,
            )
            return outputs
        self._code = code
        return outputs
