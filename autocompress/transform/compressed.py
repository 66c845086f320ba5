"""The compressed module: a cut network whose forward quantises as planned."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autocompress.errors import InvalidInputError, explain
from autocompress.transform.grids import (
    activation_grid,
    activation_values,
    weight_scales,
    weight_values,
)
from autocompress.transform.operations import (
    LAYER_FUNCTIONS,
    operand_owner,
    tensors_in,
    weight_owners,
)
from autocompress.transform.record import QuantisationPlan, SurgeryRecord

Points = Callable[[Tensor, int], Tensor]
Weights = Callable[[str, tuple[Any, ...]], tuple[Any, ...]]


class TensorQuantiser(nn.Module):
    """The grid of one activation tensor, calibrated from the values it sees.

    Args:
        bits: 2 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.low: float | None = None
        self.high = 0.0
        self.scale = 1.0
        self.zero_point = 0

    def observe(self, tensor: Tensor) -> None:
        """Widen the range to hold a batch; a range that is not finite is refused."""
        low, high = (float(bound) for bound in torch.aminmax(tensor.detach()))
        if not (low > -torch.inf and high < torch.inf):
            raise InvalidInputError(
                explain(
                    "activation range",
                    expected="finite values",
                    got=(low, high),
                    remedy="check the calibration data for NaN and infinities",
                )
            )
        self.low = low if self.low is None else min(self.low, low)
        self.high = max(self.high, high)
        self.scale, self.zero_point = activation_grid(self.low, self.high, self.bits)

    def forward(self, tensor: Tensor) -> Tensor:
        """Round a tensor to the grid."""
        return activation_values(tensor, self.scale, self.zero_point, self.bits)

    def get_extra_state(self) -> Tensor:
        """Return range and grid, for `state_dict`."""
        low = float("nan") if self.low is None else self.low
        return torch.tensor(
            [low, self.high, self.scale, float(self.zero_point)], dtype=torch.float64
        )

    def set_extra_state(self, state: Tensor) -> None:
        """Restore range and grid."""
        low, self.high, self.scale, zero_point = state.tolist()
        self.low = None if low != low else low
        self.zero_point = int(zero_point)


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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation, with its weights and its output on their grids."""
        name = getattr(func, "__name__", "")
        layer = operand_owner(args, self.owners) if name in LAYER_FUNCTIONS else ""
        if layer:
            args = self.on_layer(layer, args)
        if self.count in self.skipped and name == "batch_norm":
            result = args[0]
        else:
            result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            return self._place(result)
        if isinstance(result, (tuple, list)) and tensors_in(result):
            placed = [self._place(t) if isinstance(t, Tensor) else t for t in result]
            return placed if isinstance(result, list) else tuple(placed)
        return result

    def _place(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        number = self.count
        self.count += 1
        return self.on_point(tensor, self.points[number]) if number in self.points else tensor


class CompressedModel(nn.Module):
    """A compressed network together with the record of its surgery.

    The call takes what the original model takes. Weight grids apply while
    `quantise_weights` is set, activation grids while `quantise_activations`
    is; training usually runs with the latter off. Batch norms stay unfolded.

    Args:
        network: The network after surgery; taken over, not copied.
        record: What was done, with the quantisation plan.
    """

    def __init__(self, network: nn.Module, record: SurgeryRecord) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.quantisers = nn.ModuleList(TensorQuantiser(site.bits) for site in record.plan.sites)
        self._frozen: dict[str, Tensor] = {}
        self._scales: dict[str, tuple[tuple[int, int], Tensor]] = {}
        self.quantise_weights = True
        self.quantise_activations = True
        self._observing = False
        self._points = site_points(record.plan)
        self._mask_names = {layer: f"mask_{i}" for i, layer in enumerate(record.sparse)}
        for layer, name in self._mask_names.items():
            weight = network.get_submodule(layer).get_parameter("weight")
            self.register_buffer(name, torch.ones_like(weight, dtype=torch.bool))

    @property
    def calibrated(self) -> bool:
        """Whether every activation grid has seen values."""
        return all(q.low is not None for q in self.quantisers if isinstance(q, TensorQuantiser))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with its grids applied."""
        weights = self.quantise_weights and bool(self.record.quantised)
        activations = (self.quantise_activations or self._observing) and bool(self._points)
        if not weights and not activations:
            return self.network(*args, **kwargs)
        mode = PlannedMode(
            self._points if activations else {},
            self._observe if self._observing else self._round,
            weight_owners(self.network),
            self._layer if weights else _unchanged,
        )
        if activations:
            args, kwargs = map_inputs((args, kwargs), self._points, mode.on_point)
        with mode:
            return self.network(*args, **kwargs)

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Let the activation grids watch calls instead of rounding."""
        self._observing = True
        try:
            yield
        finally:
            self._observing = False

    def mask(self, layer: str) -> Tensor:
        """Return which weights of a sparse layer are kept, shaped as its weight."""
        return self.get_buffer(self._mask_names[layer])

    def set_mask(self, layer: str, mask: Tensor) -> None:
        """Choose the weights that a sparse layer keeps, and set the others to zero."""
        weight = self.network.get_submodule(layer).get_parameter("weight")
        self.mask(layer).copy_(mask)
        with torch.no_grad():
            weight.masked_fill_(~self.mask(layer), 0.0)

    def mask_gradients(self) -> None:
        """Clear the gradients of masked weights, so that a step leaves these at zero."""
        for layer in self._mask_names:
            gradient = self.network.get_submodule(layer).get_parameter("weight").grad
            if gradient is not None:
                gradient.masked_fill_(~self.mask(layer), 0.0)

    def reset_grids(self) -> None:
        """Forget the calibrated activation ranges."""
        for quantiser in self.quantisers:
            if isinstance(quantiser, TensorQuantiser):
                quantiser.low, quantiser.high = None, 0.0

    def quantised_weight(self, layer: str, weight: Tensor) -> tuple[Tensor, int]:
        """Return the scales (one per output channel) and bits of a layer's weight."""
        bits = self.record.quantised[layer]
        if layer in self._frozen:
            return self._frozen[layer].to(weight.device), bits
        version = (weight.data_ptr(), weight._version)
        known = self._scales.get(layer)
        if known is None or known[0] != version:
            known = (version, weight_scales(weight, bits))
            self._scales[layer] = known
        return known[1], bits

    def freeze_scales(self, scales: Mapping[str, Tensor]) -> None:
        """Fix the weight scales of layers, one scale per output channel each."""
        self._frozen = dict(scales)

    def _observe(self, tensor: Tensor, site: int) -> Tensor:
        quantiser = self.quantisers[site]
        if isinstance(quantiser, TensorQuantiser):
            quantiser.observe(tensor)
        return tensor

    def _round(self, tensor: Tensor, site: int) -> Tensor:
        rounded: Tensor = self.quantisers[site](tensor)
        return rounded

    def _layer(self, layer: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if layer not in self.record.quantised:
            return args
        scale, bits = self.quantised_weight(layer, args[1])
        return (args[0], weight_values(args[1], scale, bits), *args[2:])


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
            return type(item)(visit(entry) for entry in item)
        return item

    return visit(value)


def _unchanged(layer: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args
