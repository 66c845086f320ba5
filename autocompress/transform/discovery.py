"""Find which activation tensors of a model are quantised, by one run of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autocompress.core.candidate import LayerConfig
from autocompress.core.target import FLOAT
from autocompress.transform.record import QuantisationPlan, Site

LAYER_FUNCTIONS = frozenset(
    {"conv1d", "conv2d", "conv3d", "linear", "conv_transpose1d", "conv_transpose2d"}
)
ADD_FUNCTIONS = frozenset({"add", "__add__", "__radd__", "__iadd__", "add_"})
JOIN_FUNCTIONS = frozenset({"cat", "concat", "concatenate"})
POOL_FUNCTIONS = frozenset({"adaptive_avg_pool2d", "avg_pool2d"})
VIEW_FUNCTIONS = frozenset(
    {
        *("__getitem__", "reshape", "view", "flatten", "permute", "transpose", "pad", "chunk"),
        *("contiguous", "squeeze", "unsqueeze", "max_pool2d", "max_pool1d", "dropout", "split"),
    }
)
"""Operations whose output lies on the grid of their input."""

JOIN_BITS = 8
"""Bits of the inputs of residual adds, concatenations and average pools."""


def tensors_in(value: object) -> list[Tensor]:
    """List the floating-point tensors in nested arguments, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


class _Discovery(TorchFunctionMode):
    """Numbers every operation that returns tensors, and notes who consumes what."""

    def __init__(
        self, owners: Mapping[int, str], norms: Mapping[int, str], layers: Mapping[str, LayerConfig]
    ) -> None:
        super().__init__()
        self.owners, self.norms, self.layers = owners, norms, layers
        self.alive: list[Tensor] = []
        self.number: dict[int, int] = {}
        self.root: dict[int, int] = {}
        self.integer: dict[int, bool | None] = {}
        self.uses: dict[int, int] = {}
        self.consumers: dict[int, list[tuple[int, str, int]]] = {}
        self.produced_by: dict[int, str] = {}
        self.folds: dict[str, tuple[str, int, int]] = {}
        self.count = 0

    def register_inputs(self, tensors: Sequence[Tensor]) -> None:
        for position, tensor in enumerate(tensors):
            self._register(tensor, -1 - position, root=-1 - position, integer=None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = [self.number[id(t)] for t in tensors_in((args, kwargs)) if id(t) in self.number]
        integer = self._consume(name, args, inputs)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        for number in inputs if outputs else ():
            self.uses[number] = self.uses.get(number, 0) + 1
        for tensor in outputs:
            root = self.root[inputs[0]] if name in VIEW_FUNCTIONS and inputs else self.count
            if name in LAYER_FUNCTIONS:
                self.produced_by[self.count] = operand_owner(args, self.owners)
            if name == "batch_norm" and inputs:
                self._fold(args, inputs[0])
            self._register(tensor, self.count, root=root, integer=integer)
            self.count += 1
        return result

    def _register(self, tensor: Tensor, number: int, *, root: int, integer: bool | None) -> None:
        self.alive.append(tensor)
        self.number[id(tensor)] = number
        self.root[number] = root
        self.integer[number] = integer

    def _consume(self, name: str, args: tuple[Any, ...], inputs: list[int]) -> bool | None:
        """Note what an operation consumes; tell whether it computes in integers.

        None stands for what no layer has touched: it suits either kind.
        """
        if name in LAYER_FUNCTIONS:
            layer = operand_owner(args, self.owners)
            config = self.layers.get(layer, LayerConfig())
            if not inputs or config.activation_bits == FLOAT or config.weight_bits == FLOAT:
                return False
            self._note(inputs[0], f"{layer}.input", config.activation_bits)
            return True
        kinds = {self.integer[number] for number in inputs}
        if True not in kinds:
            return False if False in kinds else None
        joined = name in JOIN_FUNCTIONS or (name in ADD_FUNCTIONS and _is_residual(args))
        if False not in kinds and (joined or name in POOL_FUNCTIONS):
            for operand, number in enumerate(inputs):
                self._note(number, f"{name.strip('_')}{self.count}.{operand}", JOIN_BITS)
        return False not in kinds or not joined

    def _note(self, number: int, consumer: str, bits: int) -> None:
        self.consumers.setdefault(self.root[number], []).append((number, consumer, bits))

    def _fold(self, args: tuple[Any, ...], number: int) -> None:
        layer = self.produced_by.get(number, "")
        norm = operand_owner(args, self.norms)
        if layer and norm:
            self.folds[layer] = (norm, self.count, number)

    def plan(self) -> QuantisationPlan:
        sites: list[Site] = []
        inputs: dict[str, int] = {}
        for root, uses in self.consumers.items():
            points = sorted({root, *(number for number, _, _ in uses)})
            for _, consumer, _ in uses:
                if consumer.endswith(".input"):
                    inputs[consumer.removesuffix(".input")] = len(sites)
            bits = max(bits for _, _, bits in uses)
            sites.append(Site(name=uses[0][1], bits=bits, points=tuple(points)))
        folds = {
            layer: (norm, operation)
            for layer, (norm, operation, number) in self.folds.items()
            if self.uses[number] == 1
        }
        return QuantisationPlan(sites=tuple(sites), inputs=inputs, folds=folds)


def discover_plan(
    model: nn.Module,
    inputs: tuple[tuple[Any, ...], Mapping[str, Any]],
    layers: Mapping[str, LayerConfig],
) -> QuantisationPlan:
    """Run a model once and plan its tensor quantisers.

    Each activation tensor gets one grid, at the largest bits among its
    consumers. Residual adds, concatenations and average pools whose operands
    all come from quantised layers take theirs at 8 bits, because that is what
    integer runtimes fuse. Views of a quantised tensor share its grid.

    Args:
        model: The model after surgery, in eval mode; not changed.
        inputs: Positional and keyword arguments of one forward call.
        layers: Configuration by layer name; others stay unquantised.

    Returns:
        The plan; empty when no layer is quantised.
    """
    args, kwargs = inputs
    discovery = _Discovery(weight_owners(model), norm_owners(model), layers)
    discovery.register_inputs(tensors_in((args, kwargs)))
    with torch.no_grad(), discovery:
        model(*args, **kwargs)
    return discovery.plan()


def operand_owner(args: Sequence[Any], owners: Mapping[int, str]) -> str:
    """Name the module that owns the second operand of a call, or "".

    Args:
        args: Positional arguments of the call.
        owners: As `weight_owners` or `norm_owners` returns them.
    """
    return owners.get(id(args[1]), "") if len(args) > 1 else ""


def weight_owners(model: nn.Module) -> dict[int, str]:
    """Map the identity of each convolution or linear weight to its layer's name."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d)
    return {id(m.weight): name for name, m in model.named_modules() if isinstance(m, kinds)}


def norm_owners(model: nn.Module) -> dict[int, str]:
    """Map the identity of each batch norm's running mean to its module's name."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {
        id(m.running_mean): name
        for name, m in model.named_modules()
        if isinstance(m, kinds) and m.running_mean is not None
    }


def _is_residual(args: tuple[Any, ...]) -> bool:
    if len(args) < 2 or not (isinstance(args[0], Tensor) and isinstance(args[1], Tensor)):
        return False
    return args[0].shape == args[1].shape and args[0].dim() > 1 and args[0].is_floating_point()
