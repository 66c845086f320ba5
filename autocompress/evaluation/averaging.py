"""Weights of a model outside of it: copies, and their moving average."""

import copy

import torch
from torch import Tensor, nn


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model by name; they stay its own."""
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}
    return parameters | dict(model.named_buffers())


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy the parameters and buffers of a model."""
    return {name: tensor.clone() for name, tensor in weights_of(model).items()}


def set_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model other values for all of its parameters and buffers, in place."""
    with torch.no_grad():
        for name, tensor in weights_of(model).items():
            tensor.copy_(weights[name])


class WeightAverage:
    """The exponential moving average of a model's weights and buffers (Polyak 1992).

    The decay is smaller at first, at most (1 + steps) / (10 + steps), so that
    the average does not stick to where training began.

    Args:
        model: Where it begins.
        decay: Per step, [0, 1).

    Attributes:
        model: A copy of the model, in eval mode, with the averaged weights.
        steps: How many have been averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.steps = decay, 0

    def update(self, model: nn.Module) -> None:
        """Count a step of training in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        new = weights_of(model)
        with torch.no_grad():
            for name, mean in weights_of(self.model).items():
                if mean.is_floating_point():
                    mean.lerp_(new[name].to(mean.dtype), 1.0 - decay)
                else:
                    mean.copy_(new[name])
        self.model.eval()  # which reads learned steps
