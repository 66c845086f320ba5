"""The optimiser of a training, and its learning rate."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocompress.core.recipe import Recipe
from autocompress.transform.compressed import CompressedModel

CO_STUDY_RATE = 0.1
"""Learning rate of a teacher that learns, as a fraction of the student's."""


def make_optimiser(
    student: CompressedModel, recipe: Recipe, beside: nn.Module, teacher: nn.Module | None
) -> torch.optim.Optimizer:
    """Make the optimiser of a student and of what is trained with it.

    Args:
        student: The student.
        recipe: Which optimiser, with which weight decay.
        beside: Modules that are trained beside it, at the same rate.
        teacher: A teacher that is trained, too, at `CO_STUDY_RATE`.

    Returns:
        The optimiser; each group has the factor on its rate under "factor".
    """
    trained = [p for p in student.network.parameters() if p.requires_grad]
    others = [*(p for p in trained if p.dim() <= 1), *student.steps.parameters()]
    groups = [
        _group([p for p in trained if p.dim() > 1], recipe.weight_decay),
        _group(others, 0.0),
    ]
    if any(True for _ in beside.parameters()):
        groups.append(_group(list(beside.parameters()), recipe.weight_decay))
    if teacher is not None:
        groups.append(_group(list(teacher.parameters()), recipe.weight_decay, CO_STUDY_RATE))
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.peak)
    return torch.optim.SGD(
        groups, lr=recipe.peak, momentum=recipe.momentum, nesterov=recipe.momentum > 0.0
    )


def set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, progress: float) -> None:
    """Set the learning rate for a share of the schedule, [0, 1]."""
    rate = recipe.peak * rate_factor(recipe, progress)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def rate_factor(recipe: Recipe, progress: float) -> float:
    """Return the share of the peak rate: a linear rise if there is one, then a cosine to zero.

    Example:
        >>> recipe = Recipe(warm_up=0.5)
        >>> rate_factor(recipe, 0.0), rate_factor(recipe, 0.5), rate_factor(recipe, 1.0)
        (0.1, 1.0, 0.0)
    """
    warm_up = recipe.warm_up if recipe.curve == "one-cycle" else 0.0
    if progress < warm_up:
        return 0.1 + 0.9 * progress / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimiser remembers, as "number of the parameter/key" to tensor."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{key}": value
        for number, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser what `optimiser_tensors` returned of another one like it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )


def _group(
    parameters: Sequence[nn.Parameter], decay: float, factor: float = 1.0
) -> dict[str, object]:
    return {"params": list(parameters), "weight_decay": decay, "factor": factor}
