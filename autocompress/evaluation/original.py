"""The original model as a search reads it: copied, frozen, digested."""

import hashlib

import torch
from torch import nn

from autocompress.errors import InvalidInputError, explain
from autocompress.graph.inputs import ModelInputs, one_line, plain_copy, trainable
from autocompress.transform.memory_format import keep_sound


def frozen_copy(model: nn.Module, device: str, inputs: ModelInputs | None = None) -> nn.Module:
    """Copy a model for reading: float32, eval mode, on the device, convolutions channels-last.

    They stay as they are where gradients are not sound otherwise; see `keep_sound`.

    Args:
        model: Any module; not changed.
        device: Where the copy goes.
        inputs: Of one forward call. If the copy takes them only without channels-last
            convolutions, as one does that calls `view` on its features, it stays without.

    Raises:
        WrongTypeError: If it is no module.
        InvalidInputError: If the device is not there.
    """
    check_device(device)
    frozen = plain_copy(model).to(device)
    if any(parameter.dim() == 4 for parameter in frozen.parameters()):
        _set_format(frozen, torch.channels_last)
        if inputs is not None and not _runs(frozen, inputs):
            _set_format(frozen, torch.contiguous_format)
        keep_sound(frozen)
    return trainable(frozen)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here.

    Raises:
        InvalidInputError: With what torch says.
    """
    try:
        torch.zeros(1).to(device)
    except (AssertionError, RuntimeError) as error:  # torch raises the first where CUDA is missing
        raise InvalidInputError(
            explain(
                "'device'",
                expected="a device that torch has here",
                got=f"{device!r} ({one_line(error)})",
                remedy="write device='cpu'",
            )
        ) from error


def _set_format(model: nn.Module, memory_format: torch.memory_format) -> None:
    model.to(memory_format=memory_format)  # type: ignore[call-overload]


def _runs(model: nn.Module, inputs: ModelInputs) -> bool:
    device = next(model.parameters()).device
    placed = inputs.map(lambda tensor: tensor.to(device))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            placed.run(model)
        except Exception:  # a forward may raise anything
            return False
    return True


def weights_digest(model: nn.Module) -> str:
    """Digest the weights, so that a study is not continued on other ones."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
