"""Copies of models that answer faster, for where they are only read."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

TOLERANCE = 1e-3
"""Largest difference of outputs, as a share of the largest output."""


@torch.no_grad()
def folded(model: nn.Module, run: Callable[[nn.Module], Tensor]) -> nn.Module:
    """Copy a model with its batch norms folded into the layers before them.

    A batch norm is folded into the convolution or linear layer whose output is its input, where
    both run once in a forward. The copy is tried on a batch in float32.

    Args:
        model: In eval mode; not changed.
        run: Runs a model on a batch.

    Returns:
        The copy, or the model itself if nothing can be folded or the outputs differ then.
    """
    pairs = _pairs(model, run)
    if not pairs:
        return model
    copied = copy.deepcopy(model)
    for layer_name, norm_name in pairs:
        layer, norm = copied.get_submodule(layer_name), copied.get_submodule(norm_name)
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _replace(copied, layer_name, fuse(layer, norm))
        _replace(copied, norm_name, nn.Identity())
    before, after = (_exactly(each, run) for each in (model, copied))
    same = float((before - after).abs().max()) <= TOLERANCE * float(before.abs().max())
    return copied.eval() if same else model


def _pairs(model: nn.Module, run: Callable[[nn.Module], Tensor]) -> list[tuple[str, str]]:
    """Name the layers and the batch norms that take their outputs."""
    names = {module: name for name, module in model.named_modules()}
    ran: Counter[nn.Module] = Counter()
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # tensors are held: an id is not used twice
    found: list[tuple[nn.Module, nn.Module]] = []

    def look(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        ran[module] += 1
        if isinstance(module, NORMS):
            if args and id(args[0]) in outputs and module.running_mean is not None:
                found.append((outputs[id(args[0])][0], module))
        elif isinstance(output, Tensor):
            outputs[id(output)] = (module, output)

    kinds = (*CONVOLUTIONS, nn.Linear, *NORMS)
    hooks = [module.register_forward_hook(look) for module in names if type(module) in kinds]
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (names[layer], names[norm]) for layer, norm in found if ran[layer] == 1 and ran[norm] == 1
    ]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _exactly(model: nn.Module, run: Callable[[nn.Module], Tensor]) -> Tensor:
    device = next(model.parameters()).device.type
    with torch.autocast(device, enabled=False):
        return run(model)
