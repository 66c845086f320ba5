"""Where the features of a student and of its teacher are compared, and how they are read."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

POINTS = 3
"""Points that are taken where all features have the same positions."""

GRIDS = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd),
)
"""Modules whose outputs have channels first, then positions."""

ROWS = (nn.Linear, nn.LayerNorm, nn.Embedding)
"""Modules whose outputs have channels last."""


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
) -> dict[str, bool]:
    """Choose modules whose outputs are compared.

    Where convolutions have several resolutions, the last module of each; else
    `POINTS` at equal steps: of modules with features at each position, such
    as tokens, or else of convolutions, or else of the others. What the
    network returns is left out, and so is what only one of the two has.

    Args:
        teacher: The network that teaches; in eval mode.
        student: The network that learns, with modules of the same names.
        run: Calls a network on a batch.
        positions: Whether features without positions are left out.

    Returns:
        By name, in order of execution, whether channels come before positions;
        none where nothing fits.
    """
    standing = {name for name, module in student.named_modules() if name}
    outputs: dict[str, Tensor] = {}
    resolutions: set[torch.Size] = set()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() >= 2 + positions:
                if name in standing:
                    outputs[name] = output
                if isinstance(module, GRIDS) and output.dim() > 2:
                    resolutions.add(output.shape[2:])

        return keep

    handles = [module.register_forward_hook(note(name)) for name, module in teacher.named_modules()]
    try:
        with torch.no_grad():
            returned = run(teacher)
    finally:
        for handle in handles:
            handle.remove()
    named = {name: output for name, output in outputs.items() if output is not returned}
    modules = dict(teacher.named_modules())
    images: list[str] = []
    tokens: list[str] = []
    flat: list[str] = []
    for name, output in named.items():
        is_image = output.shape[2:] in resolutions and not isinstance(modules[name], ROWS)
        group = flat if output.dim() == 2 else images if is_image else tokens
        group.append(name)
    if len(resolutions) > 1 and images:
        last = {named[name].shape[2:]: name for name in images}
        return {name: True for name in images if name in last.values()}
    names = tokens or images or flat
    count = min(POINTS, len(names))
    chosen = (names[(step + 1) * len(names) // count - 1] for step in range(count))
    return {name: name in images for name in chosen}


def aligned(
    student: Tensor, teacher: Tensor, *, channels_first: bool = False
) -> tuple[Tensor, Tensor]:
    """Bring features of one module into the form n x positions x channels.

    Args:
        student: n x channels, or n x any positions x channels.
        teacher: Its features.
        channels_first: Whether they are n x channels x any positions.
    """
    if student.dim() == 2:
        return student.unsqueeze(1), teacher.unsqueeze(1)
    if channels_first:
        student, teacher = student.movedim(1, -1), teacher.movedim(1, -1)
    return student.flatten(1, -2), teacher.flatten(1, -2)
