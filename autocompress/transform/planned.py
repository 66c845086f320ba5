"""Run a network with functions applied to the weights and tensors that a plan names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from autocompress.graph.attention_product import FUSED, attention
from autocompress.graph.operations import (
    LAYER_FUNCTIONS,
    layer_arguments,
    like,
    operand_owner,
    tensors_in,
)
from autocompress.transform.record import QuantisationPlan

Points = Callable[[Tensor, int], Tensor]
Weights = Callable[[str, tuple[Any, ...]], tuple[Any, ...]]


class PlannedMode(TorchFunctionMode):
    """Applies functions at the planned points while a network runs.

    Operations are numbered as the discovery numbered them.

    Args:
        points: Operation number to the site whose grid applies there.
        on_point: Called with (tensor, site number); returns its replacement.
        owners: Weight identity to layer name.
        on_layer: Called with (layer name, arguments); returns new arguments.
        skipped: Numbers of operations that return their input unchanged.
    """

    def __init__(
        self,
        points: Mapping[int, int],
        on_point: Points,
        owners: Mapping[int, str],
        on_layer: Weights,
        skipped: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__()
        self.points, self.on_point = points, on_point
        self.owners, self.on_layer, self.skipped = owners, on_layer, skipped
        self.count = 0
        self.counts = bool(points or skipped)  # whether the numbers of operations matter

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, with its weights and its output on their grids."""
        name = getattr(func, "__name__", "")
        if name == FUSED and self.counts:
            with self:
                return attention(*args, **(kwargs or {}))
        args, kwargs = layer_arguments(name, args, kwargs or {})
        result = self.compute(name, func, args, kwargs)
        if isinstance(result, Tensor):
            return self._place(result)
        if isinstance(result, (tuple, list)) and tensors_in(result):
            placed = [self._place(t) if isinstance(t, Tensor) else t for t in result]
            return like(result, placed)
        return result

    def compute(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Run one operation, with its weight on its grid."""
        layer = operand_owner(args, self.owners) if name in LAYER_FUNCTIONS else ""
        if layer:
            args = self.on_layer(layer, args)
        if self.count in self.skipped and name == "batch_norm":
            return args[0]
        return func(*args, **kwargs)

    def _place(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        number = self.count
        self.count += 1
        return self.on_point(tensor, self.points[number]) if number in self.points else tensor


def site_points(plan: QuantisationPlan) -> dict[int, int]:
    """Map the number of each planned operation to the number of its site."""
    return {point: number for number, site in enumerate(plan.sites) for point in site.points}


def map_inputs(value: Any, points: Mapping[int, int], on_point: Points) -> Any:
    """Apply grids to those inputs of the model that are sites.

    Args:
        value: Nested tuples, lists and mappings of tensors.
        points: As in `PlannedMode`; the inputs are numbered -1, -2, ...
        on_point: As in `PlannedMode`.

    Returns:
        The same nesting with the planned tensors replaced.
    """
    counter = iter(range(-1, -1_000_000, -1))

    def visit(item: Any) -> Any:
        if isinstance(item, Tensor):
            if not item.is_floating_point():
                return item
            number = next(counter)
            return on_point(item, points[number]) if number in points else item
        if isinstance(item, Mapping):
            return {key: visit(entry) for key, entry in item.items()}
        if isinstance(item, (tuple, list)):
            return like(item, [visit(entry) for entry in item])
        return item

    return visit(value)
