"""The original model as a search reads it: copied, frozen, digested."""

import hashlib

import torch
from torch import nn

from autocompress.errors import InvalidInputError, explain
from autocompress.graph.inputs import one_line, plain_copy


def frozen_copy(model: nn.Module, device: str) -> nn.Module:
    """Copy a model for reading: float32, eval mode, on the device, images channels-last."""
    frozen = plain_copy(model)
    try:
        frozen = frozen.to(device)
    except (AssertionError, RuntimeError) as error:  # torch raises the first where CUDA is missing
        raise InvalidInputError(
            explain(
                "'device'",
                expected="a device that torch has here",
                got=f"{device!r} ({one_line(error)})",
                remedy="write device='cpu'",
            )
        ) from error
    if any(parameter.dim() == 4 for parameter in frozen.parameters()):
        frozen = frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return frozen.requires_grad_(True)


def weights_digest(model: nn.Module) -> str:
    """Digest the weights, so that a study is not continued on other ones."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
