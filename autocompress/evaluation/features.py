"""Where the features of a student and of its teacher are compared, and how they are read."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

POINTS = 3
"""Points that are taken where all features have the same positions."""


class FeatureTap:
    """Keeps the outputs of some modules of a network while it runs.

    Args:
        network: The network; hooks stay in it until `close`.
        names: Fully qualified names of the modules.

    Attributes:
        features: The latest output by name.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.features: dict[str, Tensor] = {}
        self._handles = [
            network.get_submodule(name).register_forward_hook(self._keeper(name)) for name in names
        ]

    def close(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            self.features[name] = output

        return keep


def feature_points(
    teacher: nn.Module,
    student: nn.Module,
    run: Callable[[nn.Module], object],
    *,
    positions: bool = False,
) -> tuple[str, ...]:
    """Choose modules whose outputs are compared.

    Where features have ever fewer positions, as in a convolutional network,
    the last module of each resolution; else `POINTS` of them at equal steps.
    What the network returns is left out, and so is what only one of the two has.

    Args:
        teacher: The network that teaches; in eval mode.
        student: The network that learns, with modules of the same names.
        run: Calls a network on a batch.
        positions: Whether features without positions are left out.

    Returns:
        Names in order of execution; none where nothing fits.
    """
    standing = {name for name, module in student.named_modules() if name}
    order: dict[str, tuple[int, ...]] = {}
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() >= 2 + positions:
                order[name], outputs[name] = tuple(output.shape[2:]), output

        return keep

    handles = [
        module.register_forward_hook(note(name))
        for name, module in teacher.named_modules()
        if name in standing
    ]
    try:
        with torch.no_grad():
            returned = run(teacher)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name in order if outputs[name] is not returned]
    images = [name for name in names if outputs[name].dim() >= 4]
    if images:
        last = {order[name]: name for name in images}
        return tuple(name for name in images if name in last.values())
    count = min(POINTS, len(names))
    return tuple(names[(step + 1) * len(names) // count - 1] for step in range(count))


def aligned(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Bring features of one module into the form n x positions x channels.

    Args:
        student: n x channels, n x positions x channels or n x channels x positions, or
            n x channels x height x width; the same of the teacher with other channels.
        teacher: Its features.
    """
    first = student.dim() >= 4 or (student.dim() == 3 and student.shape[1] != teacher.shape[1])
    found = []
    for features in (student, teacher):
        if features.dim() == 2:
            found.append(features.unsqueeze(1))
        else:
            found.append((features.movedim(1, -1) if first else features).flatten(1, -2))
    return found[0], found[1]
