"""What levels of knobs stand for, for many candidates at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import DistillConfig, LayerConfig, is_inside
from autocompress.core.population import Population
from autocompress.core.target import FLOAT
from autocompress.space.choices import DENSE, PrecisionPair, SparsityLevel
from autocompress.space.knobs import Knob, T, layer_configs

Mask = NDArray[np.bool_]
Columns = Mapping[str, NDArray[np.intp]]
"""By the name of a parameter, `n` levels; 0 for one that is not there."""


class Levels:
    """Looks up what knobs set, but for what goes with a dropped block.

    Args:
        blocks: Names of the blocks that may be dropped.
        knobs: The choices of ratios, of bits and of sparsity.
        weight_format: Of weights with 2 to 7 bits.
        group_size: Of quantised weights.
    """

    def __init__(
        self,
        blocks: Sequence[str],
        knobs: tuple[
            Sequence[Knob[float]], Sequence[Knob[PrecisionPair]], Sequence[Knob[SparsityLevel]]
        ],
        weight_format: str,
        group_size: int,
    ) -> None:
        pruning, precision, sparsity = knobs
        self._blocks, self._pruning, self._sparsity = tuple(blocks), tuple(pruning), tuple(sparsity)
        self._knobs: list[Knob[Any]] = [*pruning, *precision, *sparsity]
        names = {name for knob in self._knobs for name in knob.members}
        self._around = {name: tuple(b for b in blocks if is_inside(name, b)) for name in names}
        self._ratios = [
            (group, knob.name, np.array(values))
            for knob in pruning
            for group, values in _by_member(knob)
        ]
        bits = {layer: (k.name, values) for k in precision for layer, values in _by_member(k)}
        masks = {layer: (k.name, values) for k in sparsity for layer, values in _by_member(k)}
        self._single = {  # where one bit leaves nothing to mask
            layer: (name, np.array([weight_bits == 1 for weight_bits, _ in pairs]))
            for layer, (name, pairs) in bits.items()
            if layer in masks
        }
        codes: dict[LayerConfig, int] = {LayerConfig(): 0}
        self._layers = []
        for layer in dict.fromkeys((*bits, *masks)):
            wide, pairs = bits.get(layer, ("", ((FLOAT, FLOAT),)))
            thin, fractions = masks.get(layer, ("", (DENSE,)))
            found = [
                layer_configs({layer: pair}, {layer: part}, weight_format, group_size)[layer]
                for pair in pairs
                for part in fractions
            ]
            table = [codes.setdefault(config, len(codes)) for config in found]
            self._layers.append((layer, wide, thin, np.reshape(table, (len(pairs), -1))))
        self._configs = tuple(codes)

    def population(
        self, levels: Columns, criteria: Sequence[str], distills: Sequence[DistillConfig]
    ) -> Population:
        """Return the `n` candidates that levels stand for.

        Args:
            levels: Of all knobs and blocks.
            criteria: `n` criteria.
            distills: `n` ways to teach.
        """
        standing = self._standing(levels, len(criteria))
        whole = np.zeros(len(criteria), dtype=np.intp)
        return Population(
            ratios={
                group: np.where(standing[group], values[levels[knob]], 0.0)
                for group, knob, values in self._ratios
            },
            dropped={block: levels[f"drop:{block}"] > 0 for block in self._blocks},
            configs=self._configs,
            layers={
                layer: np.where(
                    standing[layer], table[levels.get(wide, whole), levels.get(thin, whole)], 0
                )
                for layer, wide, thin, table in self._layers
            },
            criteria=criteria,
            distills=distills,
        )

    def without_effect(self, levels: Columns, count: int) -> dict[str, Mask]:
        """Tell which of `n` candidates a parameter does nothing for, `n` booleans each.

        Those inside dropped blocks do nothing, nor does the sparsity of one-bit weights, and a
        criterion needs something to prune.
        """
        standing = self._standing(levels, count)
        maskable = standing | {
            layer: standing[layer] & ~single[levels[wide]]
            for layer, (wide, single) in self._single.items()
        }
        idle = {
            knob.name: ~np.logical_or.reduce([there[name] for name in knob.members])
            for there, knobs in ((standing, self._knobs), (maskable, self._sparsity))
            for knob in knobs
        }
        pruned = [~idle[knob.name] & (levels[knob.name] > 0) for knob in self._pruning]
        return idle | {"criterion": ~np.logical_or.reduce([np.zeros(count, dtype=bool), *pruned])}

    def _standing(self, levels: Columns, count: int) -> dict[str, Mask]:
        """Tell which candidates keep every group and every layer."""
        known: dict[tuple[str, ...], Mask] = {(): np.ones(count, dtype=bool)}
        for blocks in set(self._around.values()) - {()}:
            known[blocks] = ~np.logical_or.reduce([levels[f"drop:{block}"] > 0 for block in blocks])
        return {name: known[blocks] for name, blocks in self._around.items()}


def _by_member(knob: Knob[T]) -> list[tuple[str, tuple[T, ...]]]:
    """List the members of a knob with the value of each at every level."""
    return list(zip(knob.members, zip(*knob.levels, strict=True), strict=True))
