"""Rounding of weights such that the errors within a layer cancel (GPTQ)."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autocompress.transform.compressed import CompressedModel
from autocompress.transform.weights import QuantisedWeight, WeightGrid

Batch = TypeVar("Batch")

POSITIONS = 1024
"""Rows of inputs that every layer is observed on, per batch."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to it, as in the paper."""

BLOCK = 128
"""Columns that are rounded before the rest is updated."""

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


def round_weights(
    compressed: CompressedModel,
    batches: Iterable[Batch],
    run: Callable[[nn.Module, Batch], object],
) -> None:
    """Round the weights below 8 bits so that their layers' outputs change least.

    GPTQ (Frantar et al. 2023): column by column, the error of rounding is
    made up for by the columns that are not rounded yet. The inputs of all
    layers are observed at once, without grids. Layers keep their grids;
    transposed convolutions and embeddings their codes too.

    Args:
        compressed: Its weights and grids are fixed in place.
        batches: What `run` takes, one at a time.
        run: Calls the model on one batch.
    """
    record = compressed.record
    narrow = {name for name, bits in record.quantised.items() if bits < 8}
    grids = compressed.quantise_weights, compressed.quantise_activations
    compressed.quantise_weights = compressed.quantise_activations = False
    moments = observe_inputs(compressed, narrow, batches, run)
    compressed.quantise_weights, compressed.quantise_activations = grids
    for name, moment in moments.items():
        quantised = compressed.quantised_weight(name)
        weight = compressed.network.get_submodule(name).get_parameter("weight").detach()
        mask = compressed.mask(name) if name in record.sparse else None
        codes = cancel_errors(weight.float(), quantised.grid, moment, mask)
        compressed.set_quantised_weight(name, QuantisedWeight(codes=codes, grid=quantised.grid))


def observe_inputs(
    compressed: CompressedModel,
    layers: Iterable[str],
    batches: Iterable[Batch],
    run: Callable[[nn.Module, Batch], object],
) -> dict[str, Tensor]:
    """Sum the second moments of what layers multiply their weights with.

    Args:
        compressed: Put in eval mode; runs with the grids that are on.
        layers: Names of layers; those that are neither linear nor a plain
            convolution are left out.
        batches: What `run` takes, one at a time.
        run: Calls the model on one batch.

    Returns:
        For each layer, groups x columns x columns, in float64.
    """
    compressed.eval()
    moments: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    wanted = set(layers)

    def watch(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        module = compressed.network.get_submodule(name)
        if name in wanted and (isinstance(module, nn.Linear) or _is_convolution(module)):
            rows = _input_rows(module, args, generator)
            with torch.autocast(rows.device.type, enabled=False):  # sums of squares, whole
                moment = (rows.transpose(1, 2) @ rows).double()
            moments[name] = moments[name] + moment if name in moments else moment
        return args

    with torch.no_grad(), compressed.watching(watch):
        for batch in batches:
            run(compressed, batch)
    return moments


def cancel_errors(
    weight: Tensor, grid: WeightGrid, moment: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Round a weight so that weight times inputs changes little.

    Args:
        weight: float32.
        grid: The grid to round to.
        moment: Second moments of the inputs, groups x columns x columns.
        mask: Weights that are not zero; None for all.

    Returns:
        Codes, int8, of the weight's shape.
    """
    layout, groups = grid.layout, len(moment)
    wide = layout.rows(layout.spread(grid.scales).expand(layout.shape)).double()
    rows = layout.rows(weight).double()
    kept = None if mask is None else layout.rows(mask)
    order = moment.diagonal(dim1=1, dim2=2).sum(dim=0).argsort(descending=True, stable=True)
    shape = (groups, len(rows) // groups, rows.shape[1])
    left, step = (t[:, order].reshape(shape) for t in (rows, wide))
    keep = None if kept is None else kept[:, order].reshape(shape)
    factors = _inverse_factors(moment[:, order][:, :, order])
    codes = torch.empty_like(left)
    for first in range(0, shape[2], BLOCK):
        last = min(first + BLOCK, shape[2])
        errors = torch.empty_like(left[:, :, first:last])
        for column in range(first, last):
            rounded = grid.round(left[:, :, column] / step[:, :, column])
            if keep is not None:
                rounded = rounded.masked_fill(~keep[:, :, column], 0.0)
            codes[:, :, column] = rounded
            error = left[:, :, column] - rounded * step[:, :, column]
            error = error / factors[:, column, column, None]
            errors[:, :, column - first] = error
            rest = factors[:, None, column, column + 1 : last]
            left[:, :, column + 1 : last] -= error[:, :, None] * rest
        left[:, :, last:] -= errors @ factors[:, first:last, last:]
    restored = torch.empty_like(rows)
    restored[:, order] = codes.reshape(rows.shape)
    return layout.unrows(restored).to(torch.int8)


def _inverse_factors(moment: Tensor) -> Tensor:
    """Return upper Cholesky factors of the inverses of damped moments."""
    diagonal = moment.diagonal(dim1=1, dim2=2)
    damping = DAMPING * diagonal.mean(dim=1).clamp_min(1e-12)
    damped = moment + torch.diag_embed(damping[:, None].expand_as(diagonal))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factors: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factors


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _input_rows(module: nn.Module, args: tuple[Any, ...], generator: torch.Generator) -> Tensor:
    """Return some rows that a layer multiplies its weight with: groups x rows x columns."""
    inputs: Tensor = args[0].detach().float()
    if isinstance(module, nn.Linear):
        rows = inputs.reshape(-1, inputs.shape[-1])
        if len(rows) > POSITIONS:
            rows = rows[_draw(len(rows), generator)]
        return rows[None]
    _, weight, _, stride, padding, dilation, groups = args
    kernel = weight.shape[2:]
    inputs = nn.functional.pad(inputs, _margins(kernel, padding, dilation))
    windows = inputs
    for axis, size in enumerate(kernel):
        span = (size - 1) * dilation[axis] + 1
        windows = windows.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    places = [windows.shape[0], *windows.shape[2 : 2 + len(kernel)]]
    drawn = [_draw(size, generator) for size in places]
    rows = windows.movedim(1, 1 + len(kernel))[tuple(drawn)]  # rows x channels x taps
    return rows.reshape(POSITIONS, groups, -1).transpose(0, 1)


def _draw(size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(size, (POSITIONS,), generator=generator)


def _margins(kernel: torch.Size, padding: object, dilation: tuple[int, ...]) -> list[int]:
    """Return the padding of a convolution as `pad` takes it, last axis first."""
    margins = []
    for axis in reversed(range(len(kernel))):
        total = (kernel[axis] - 1) * dilation[axis]
        if padding == "same":
            margins += [total // 2, total - total // 2]
        elif isinstance(padding, tuple):
            margins += [padding[axis], padding[axis]]
        else:
            margins += [0, 0]
    return margins
