"""Bits per weight that the packed file takes, estimated from the original's weights."""

import torch
from torch import Tensor, nn

from autocompress.artifact.stored_weight import entries_bytes, weight_entries
from autocompress.core.candidate import LayerConfig
from autocompress.core.target import FLOAT
from autocompress.transform.sparsity import keep_mask
from autocompress.transform.weights import WeightLayout, choose_grid

SAMPLE = 1 << 17
"""Weights of one layer that are looked at; whole rows, evenly spread."""


class StoredBits:
    """Codes the original's weights as the packed file would, once per layer and choice.

    Training and pruning change the weights, but their spread on the grid,
    which decides how short codes are, changes little.

    Args:
        model: The original; not changed.
        reduced: Whether 8-bit weights keep to 7 bits; see `weight_limit`.
    """

    def __init__(self, model: nn.Module, *, reduced: bool = False) -> None:
        self._model, self._reduced = model, reduced
        self._known: dict[tuple[object, ...], float] = {}

    def __call__(self, layer: str, config: LayerConfig) -> float:
        """Return the bits that one weight takes, masked ones counted too, scales not.

        Args:
            layer: Name of the layer.
            config: Its bits, format and sparsity.
        """
        if config.weight_bits == FLOAT and config.sparsity == 0.0:
            return float(FLOAT)
        key = (
            layer,
            *(config.weight_bits, config.weight_format, config.group_size),
            config.activation_bits == FLOAT,
            *(config.sparsity, config.sparsity_pattern),
        )
        if key not in self._known:
            self._known[key] = self._measure(layer, config)
        return self._known[key]

    def _measure(self, layer: str, config: LayerConfig) -> float:
        module = self._model.get_submodule(layer)
        layout = WeightLayout.of(module, config.group_size)
        rows = layout.rows(module.get_parameter("weight").detach().float().cpu())
        step = -(-rows.numel() // SAMPLE)
        sample = rows[::step].reshape(-1, layout.inputs, rows.shape[1] // layout.inputs)
        mask: Tensor | None = None
        if config.sparsity > 0.0:
            mask = keep_mask(sample, config.sparsity, config.sparsity_pattern)
        if config.weight_bits == FLOAT:
            entries = weight_entries(sample, mask=mask)
        else:
            flat = WeightLayout(shape=tuple(sample.shape), group_size=config.group_size)
            with torch.no_grad():
                grid = choose_grid(
                    sample, flat, config, zero=mask is not None, reduced=self._reduced
                )
                entries = weight_entries(grid.codes(sample, mask), grid.levels, mask)
        return 8.0 * entries_bytes(entries) / sample.numel()
