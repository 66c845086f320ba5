"""The compressed module: a cut network whose forward quantises as planned."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.core.candidate import UNIFORM, LayerConfig
from autocompress.core.quantisation import DEFAULT_OBSERVER
from autocompress.graph.operations import weight_owners
from autocompress.transform.grids import weight_limit
from autocompress.transform.planned import PlannedMode, Weights, map_inputs, site_points
from autocompress.transform.quantiser import TensorQuantiser
from autocompress.transform.record import QuantisationPlan, Site, SurgeryRecord
from autocompress.transform.steps import SMALLEST, round_learned, step_gradient_scale
from autocompress.transform.weights import QuantisedWeight, WeightGrid, WeightLayout, choose_grid


class CompressedModel(nn.Module):
    """A compressed network together with the record of its surgery.

    The call takes what the original model takes. Weight grids apply while
    `quantise_weights` is set, activation grids while `quantise_activations`
    is; grids with learned steps always do. Batch norms stay unfolded.

    Args:
        network: The network after surgery; taken over, not copied.
        record: What was done, with the quantisation plan.

    Attributes:
        steps: Learned steps of weight and activation grids, one for each
            tensor and bit-width; empty unless it was trained with them.
    """

    def __init__(self, network: nn.Module, record: SurgeryRecord) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.quantisers = nn.ModuleList(TensorQuantiser(site.bits) for site in record.plan.sites)
        self.steps = nn.ParameterDict()
        self._fixed: dict[str, WeightGrid] = {}
        self._known: dict[str, tuple[tuple[int, ...], QuantisedWeight, Tensor]] = {}
        self._observer = DEFAULT_OBSERVER
        self.quantise_weights = True
        self.quantise_activations = True
        self._observing = False
        self._watch: Weights | None = None
        self._points = site_points(record.plan)
        self._mask_names = {layer: f"mask_{i}" for i, layer in enumerate(record.sparse)}
        for layer, name in self._mask_names.items():
            weight = network.get_submodule(layer).get_parameter("weight")
            self.register_buffer(name, torch.ones_like(weight, dtype=torch.bool))

    @property
    def calibrated(self) -> bool:
        """Whether every activation grid has seen values."""
        return all(quantiser.low is not None for _, quantiser in self.sites())

    @property
    def is_plain(self) -> bool:
        """Whether a call runs the network alone: no grid is on, and nothing watches."""
        rounds = self.quantise_weights and bool(self.record.quantised)
        tensors = self.quantise_activations and bool(self.record.plan.sites)
        learned = any(self._learned(site) for site, _ in self.sites())
        return not (rounds or tensors or learned or self._observing or self._watch is not None)

    def sites(self) -> list[tuple[Site, TensorQuantiser]]:
        """List the quantised activation tensors with their grids."""
        grids = [q for q in self.quantisers if isinstance(q, TensorQuantiser)]
        return list(zip(self.record.plan.sites, grids, strict=True))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with its grids applied."""
        weights = self.quantise_weights and bool(self.record.quantised)
        points = self._points
        if not (self.quantise_activations or self._observing):
            learned = {n for n, site in enumerate(self.record.plan.sites) if self._learned(site)}
            points = {point: site for point, site in points.items() if site in learned}
        if not weights and not points and self._watch is None:
            return self.network(*args, **kwargs)
        mode = PlannedMode(
            points,
            self._observe if self._observing else self._round,
            weight_owners(self.network),
            self._layer,
        )
        if points:
            args, kwargs = map_inputs((args, kwargs), points, mode.on_point)
        with mode:
            return self.network(*args, **kwargs)

    @contextlib.contextmanager
    def observing(self, observer: str) -> Iterator[None]:
        """Let the activation grids watch calls instead of rounding, and fit them at the end.

        Args:
            observer: How ranges are chosen, one of `OBSERVERS`.
        """
        self._observing, self._observer = True, observer
        try:
            yield
        finally:
            self._observing = False
        for site, quantiser in self.sites():
            if not self._learned(site):
                quantiser.fit(observer)

    @contextlib.contextmanager
    def watching(self, watch: Weights) -> Iterator[None]:
        """Show the arguments of every layer to a function while calls run.

        Args:
            watch: Called with the layer's name and the arguments of its
                function, its input on its grid; returns the arguments.
        """
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

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
        """Forget the calibrated activation ranges, but not learned steps."""
        for site, quantiser in self.sites():
            if not self._learned(site):
                quantiser.reset()

    def quantised_weight(self, layer: str) -> QuantisedWeight:
        """Return the codes and the grid of a quantised layer's weight."""
        return self._quantised(layer)[0]

    def set_quantised_weight(self, layer: str, weight: QuantisedWeight) -> None:
        """Give a layer the weight that codes stand for, and fix its grid."""
        parameter = self.network.get_submodule(layer).get_parameter("weight")
        with torch.no_grad():
            parameter.copy_(weight.values())
        self._fixed[layer] = weight.grid

    def release_grids(self) -> None:
        """Let the grids of all weights follow the weights again."""
        self._fixed.clear()

    def set_bits(self, layers: Mapping[str, LayerConfig], plan: QuantisationPlan) -> None:
        """Give layers other bits, in place; weights, masks and learned steps stay.

        Activation grids are fitted to what calibration saw; those of tensors
        that it has not watched need calibration.

        Args:
            layers: Configuration by layer name, of the same sparsity; others
                become unquantised.
            plan: Where grids apply then, as `plan_grids` finds it.
        """
        seen = {site.points[0]: quantiser.observer for site, quantiser in self.sites()}
        candidate = replace(self.record.candidate, layers=layers).canonical()
        self.record = replace(
            self.record, candidate=candidate, quantised=candidate.weight_bits(), plan=plan
        )
        self._points = site_points(plan)
        self.quantisers = nn.ModuleList(TensorQuantiser(site.bits) for site in plan.sites)
        self.release_grids()
        self._known.clear()
        for site, quantiser in self.sites():
            quantiser.observer = seen.get(site.points[0], quantiser.observer)
            quantiser.fit(self._observer)
        self._apply_steps()

    def learn_steps(self, *, activations: bool = True) -> None:
        """Make the steps of grids below 8 bits parameters, for the present bits.

        They begin at the present grids, so that activations must be
        calibrated. Binary weights and codebooks have none.

        Args:
            activations: Whether those of activations are learned, too.
        """
        for layer, bits in self.record.quantised.items():
            config, key = self.record.candidate.layer(layer), self._weight_key(layer)
            if 2 <= bits < 8 and config.weight_format == UNIFORM and key not in self.steps:
                self.steps[key] = nn.Parameter(self.quantised_weight(layer).grid.scales.clone())
        for site, quantiser in self.sites() if activations else ():
            if site.bits < 8 and _tensor_key(site) not in self.steps:
                device = next(self.network.parameters()).device
                step = torch.tensor(quantiser.scale, device=device)
                self.steps[_tensor_key(site)] = nn.Parameter(step)

    def learned_grids(self) -> dict[str, Tensor]:
        """Return range, step and zero of activation grids with learned steps, by their keys."""
        return {
            _tensor_key(site): quantiser.get_extra_state()
            for site, quantiser in self.sites()
            if self._learned(site)
        }

    def set_steps(self, steps: Mapping[str, Tensor], grids: Mapping[str, Tensor]) -> None:
        """Take learned steps, and what `learned_grids` returned of the model that they are from."""
        device = next(self.network.parameters()).device
        for key, step in steps.items():
            self.steps[key] = nn.Parameter(step.detach().to(device, copy=True))
        for site, quantiser in self.sites():
            if (grid := grids.get(_tensor_key(site))) is not None:
                quantiser.set_extra_state(grid)
        self._apply_steps()

    def forget_steps(self) -> None:
        """Drop learned steps: grids follow the weights, and calibration, again."""
        for site, quantiser in self.sites():
            if self._learned(site):
                quantiser.reset()
        self.steps.clear()

    def train(self, mode: bool = True) -> "CompressedModel":
        """Switch between training and evaluation, which reads the learned steps."""
        super().train(mode)
        self._apply_steps()
        return self

    def _apply_steps(self) -> None:
        for site, quantiser in self.sites():
            if self._learned(site):
                quantiser.scale = float(self.steps[_tensor_key(site)].detach().clamp_min(SMALLEST))

    def _learned(self, site: Site) -> bool:
        return _tensor_key(site) in self.steps

    def _weight_key(self, layer: str) -> str:
        config = self.record.candidate.layer(layer)
        return f"{layer}:{config.weight_bits}:{config.group_size}".replace(".", "/")

    def _observe(self, tensor: Tensor, site: int) -> Tensor:
        if self._learned(self.record.plan.sites[site]):
            return self._round(tensor, site)
        quantiser = self.quantisers[site]
        if isinstance(quantiser, TensorQuantiser):
            quantiser.observer.watch(tensor)
        return tensor

    def _round(self, tensor: Tensor, site: int) -> Tensor:
        quantiser, planned = self.quantisers[site], self.record.plan.sites[site]
        if self.training and self._learned(planned) and isinstance(quantiser, TensorQuantiser):
            high = 2**planned.bits - 1
            return round_learned(
                tensor,
                self.steps[_tensor_key(planned)],
                -quantiser.zero_point,
                high - quantiser.zero_point,
                step_gradient_scale(tensor[:1].numel(), high),
            )
        rounded: Tensor = quantiser(tensor)
        return rounded

    def _layer(self, layer: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._watch is not None:
            args = self._watch(layer, args)
        if not (self.quantise_weights and layer in self.record.quantised):
            return args
        return (args[0], self._rounded(layer, args[1]), *args[2:])

    def _rounded(self, layer: str, weight: Tensor) -> Tensor:
        """Round a weight, with gradients for it and for its steps where they are wanted."""
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return self._quantised(layer)[1]
        step = self._weight_step(layer)
        if step is None:
            quantised, values = self._quantised(layer)
            return straight_through(weight, values, quantised.grid)
        layout, limit = self._layout(layer), weight_limit(self.record.quantised[layer])
        shared = weight.numel() // step.numel()
        return round_learned(
            weight, layout.spread(step), -limit, limit, step_gradient_scale(shared, limit)
        )

    def _weight_step(self, layer: str) -> Tensor | None:
        step: Tensor | None = self.steps.get(self._weight_key(layer))
        return step

    def _layout(self, layer: str) -> WeightLayout:
        config = self.record.candidate.layer(layer)
        return WeightLayout.of(self.network.get_submodule(layer), config.group_size)

    def _quantised(self, layer: str) -> tuple[QuantisedWeight, Tensor]:
        """Return codes and values of a weight, kept until the weight changes."""
        weight = self.network.get_submodule(layer).get_parameter("weight").detach()
        step, fixed = self._weight_step(layer), self._fixed.get(layer)
        config = self.record.candidate.layer(layer)
        version: tuple[int, ...] = (
            weight.data_ptr(),
            weight._version,
            id(fixed),
            config.weight_bits,
        )
        version += () if step is None else (step.data_ptr(), step._version)
        known = self._known.get(layer)
        if known is not None and known[0] == version:
            return known[1], known[2]
        mask = self.mask(layer) if layer in self.record.sparse else None
        if fixed is not None:
            grid = fixed.to(weight.device)
        elif step is not None:
            scales = step.detach().clamp_min(SMALLEST)
            grid = WeightGrid(bits=config.weight_bits, layout=self._layout(layer), scales=scales)
        else:
            grid = choose_grid(
                weight,
                self._layout(layer),
                config,
                zero=mask is not None,
                reduced=self.record.reduced,
            )
        codes = grid.codes(weight.float(), mask)
        quantised = QuantisedWeight(codes=codes.to(torch.int8), grid=grid)
        values = grid.values(codes).to(weight.dtype)
        self._known[layer] = (version, quantised, values)
        return quantised, values


def straight_through(weight: Tensor, values: Tensor, grid: WeightGrid) -> Tensor:
    """Return rounded values whose gradient is that of the weight inside the grid's range.

    The straight-through estimator of Bengio et al. 2013. Of one bit, the
    range is everything.
    """
    if grid.bits > 1:
        ends, wide = grid.levels[[0, -1]].tolist(), grid.layout.spread(grid.scales)
        weight = weight.clamp(ends[0] * wide, ends[1] * wide)
    return weight + (values - weight).detach()


def _tensor_key(site: Site) -> str:
    return f"tensor:{site.points[0]}:{site.bits}"
