"""Quantised weights: integer codes, scales, and codebooks where the codes are not uniform."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autocompress.core.candidate import CODEBOOK, LayerConfig
from autocompress.core.target import FLOAT
from autocompress.transform.codebooks import nearest_entries, optimal_codebook
from autocompress.transform.grids import (
    absolute_scales,
    clipped_scales,
    mean_scales,
    round_uniform,
    weight_limit,
)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightLayout:
    """Which axes of a weight are its outputs, and which weights share a scale.

    Seen as a table, a weight has one row per output channel (of an embedding,
    per entry) and one column per input and kernel position, inputs first.

    Attributes:
        shape: Shape of the weight.
        transposed: Groups of a transposed convolution, whose first axis is
            its inputs; 0 for every other layer.
        group_size: Inputs that share a scale; 0 for all inputs of a row.
    """

    shape: tuple[int, ...]
    transposed: int = 0
    group_size: int = 0

    @classmethod
    def of(cls, module: nn.Module, group_size: int = 0) -> "WeightLayout":
        """Return the layout of a layer's weight."""
        transposed = int(module.groups) if isinstance(module, TRANSPOSED) else 0
        shape = tuple(module.get_parameter("weight").shape)
        return cls(shape=shape, transposed=transposed, group_size=group_size)

    @property
    def axis(self) -> int:
        """The axis of the weight that is its outputs."""
        return 1 if self.transposed else 0

    @property
    def inputs(self) -> int:
        """Inputs of one row."""
        return self.shape[0] // self.transposed if self.transposed else self.shape[1]

    @property
    def outputs(self) -> int:
        """Rows."""
        return self.shape[1] * self.transposed if self.transposed else self.shape[0]

    def rows(self, weight: Tensor) -> Tensor:
        """Arrange a tensor of the weight's shape as outputs x (inputs x kernel positions)."""
        if not self.transposed:
            return weight.flatten(1)
        wide = weight.reshape(self.transposed, self.inputs, self.shape[1], -1)
        return wide.transpose(1, 2).reshape(self.transposed * self.shape[1], -1)

    def unrows(self, rows: Tensor) -> Tensor:
        """Undo `rows`."""
        if not self.transposed:
            return rows.reshape(self.shape)
        wide = rows.reshape(self.transposed, self.shape[1], self.inputs, -1)
        return wide.transpose(1, 2).reshape(self.shape)

    def shared(self, weight: Tensor) -> Tensor:
        """Arrange a weight as outputs x groups x the weights that share a scale, zeros added."""
        rows = self.rows(weight)
        if not self.group_size:
            return rows[:, None]
        size = self.group_size * (rows.shape[1] // self.inputs)
        short = -rows.shape[1] % size
        return nn.functional.pad(rows, (0, short)).reshape(len(rows), -1, size)

    def unshared(self, table: Tensor) -> Tensor:
        """Undo `shared`, the added zeros left out."""
        columns = math.prod(self.shape[2:]) * self.inputs
        return self.unrows(table.reshape(-1, table.numel() // self.outputs)[:, :columns])

    def spread(self, scales: Tensor) -> Tensor:
        """Arrange scales, outputs x groups, to be multiplied with the weight."""
        if scales.shape[1] == 1 and self.transposed <= 1:
            shape = [1] * len(self.shape)
            shape[self.axis] = len(scales)
            return scales.reshape(shape)
        size = self.group_size or self.inputs
        columns = scales.repeat_interleave(size, dim=1)[:, : self.inputs]
        ones = [1] * (len(self.shape) - 2)
        if not self.transposed:
            return columns.reshape(*self.shape[:2], *ones)
        wide = columns.reshape(self.transposed, self.shape[1], self.inputs).transpose(1, 2)
        return wide.reshape(*self.shape[:2], *ones)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightGrid:
    """The values that the weights of one layer may take.

    Attributes:
        bits: 1 to 8.
        layout: How scales go with the weight.
        scales: float32, outputs x groups, each > 0.
        codebook: The integers that codes may be, ascending, int8; None for
            all in [-limit, limit], or -1 and 1 at one bit.
        reduced: Whether codes keep to 7 bits; see `weight_limit`.
    """

    bits: int
    layout: WeightLayout
    scales: Tensor
    codebook: Tensor | None = None
    reduced: bool = False

    def to(self, device: torch.device) -> "WeightGrid":
        """Return the grid on a device."""
        codebook = None if self.codebook is None else self.codebook.to(device)
        return replace(self, scales=self.scales.to(device), codebook=codebook)

    @property
    def levels(self) -> Tensor:
        """All values that a code can be, ascending, int8."""
        if self.codebook is not None:
            return self.codebook
        limit = weight_limit(self.bits, reduced=self.reduced)
        return torch.arange(-limit, limit + 1, 2 if self.bits == 1 else 1, dtype=torch.int8)

    def codes(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """Round a weight to codes, floats of the weight's shape; masked ones are 0."""
        codes = self.round(weight / self.layout.spread(self.scales))
        return codes if mask is None else codes.masked_fill(~mask, 0.0)

    def round(self, scaled: Tensor) -> Tensor:
        """Round weights, in units of their scales, to codes."""
        if self.codebook is not None:
            return nearest_entries(scaled, self.codebook)
        return round_uniform(scaled, self.bits, reduced=self.reduced)

    def values(self, codes: Tensor) -> Tensor:
        """Return what codes stand for."""
        return codes * self.layout.spread(self.scales)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisedWeight:
    """A weight as integers. Its value is codes x scales, whatever the format.

    Attributes:
        codes: int8, shape of the weight, in [-127, 127].
        grid: Bits, scales and codebook.
    """

    codes: Tensor
    grid: WeightGrid

    def values(self) -> Tensor:
        """Return the weight in float32."""
        return self.grid.values(self.codes.float())


def choose_grid(
    weight: Tensor,
    layout: WeightLayout,
    config: LayerConfig,
    *,
    zero: bool = False,
    reduced: bool = False,
) -> WeightGrid:
    """Choose the grid of a weight from its values.

    One scale per output channel, or per group of inputs. At 8 bits the
    largest weight sets it; below, the clipping point with the least squared
    error; at one bit the mean magnitude (Rastegari et al. 2016). A codebook
    (Han et al. 2015) is shared by the layer and holds multiples of the
    scales, of which the largest weight is 127 (63 if reduced), so that its layer
    still computes in 8-bit integers; its entries minimise the squared error.

    Args:
        weight: The weight.
        layout: How it is arranged.
        config: Its bits and format.
        zero: Whether the codebook must hold zero.
        reduced: Whether codes keep to 7 bits where activations are quantised; see `weight_limit`.
    """
    reduced = reduced and config.activation_bits != FLOAT
    shared = layout.shared(weight.detach().float())
    bits = config.weight_bits
    if config.weight_format == CODEBOOK:
        scales = absolute_scales(shared, weight_limit(8, reduced=reduced))
        grid = WeightGrid(bits=8, layout=layout, scales=scales, reduced=reduced)
        importance = layout.spread(scales).square().expand(layout.shape)
        codebook = optimal_codebook(grid.codes(weight), importance, 2**bits, zero=zero)
        return replace(grid, bits=bits, codebook=codebook)
    if bits == 1:
        filled = layout.shared(torch.ones_like(weight, dtype=torch.float32))
        return WeightGrid(bits=1, layout=layout, scales=mean_scales(shared, filled.sum(dim=2)))
    limit = weight_limit(bits, reduced=reduced)
    scales = absolute_scales(shared, limit) if bits == 8 else clipped_scales(shared, limit)
    return WeightGrid(bits=bits, layout=layout, scales=scales, reduced=reduced)
