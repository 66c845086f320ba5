"""Many candidates side by side, as columns that arithmetic takes at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig

N = TypeVar("N", np.float64, np.intp)


@dataclass(frozen=True, kw_only=True)
class Population:
    """`n` candidates; what a column does not mention is left as it was.

    Attributes:
        ratios: For each group that any candidate prunes, `n` pruning ratios.
        dropped: For each block that any candidate drops, `n` booleans.
        configs: The configurations that layers have; the first is the untouched one.
        layers: For each layer that any candidate changes, `n` indices into `configs`.
        criteria: `n` criteria.
        distills: `n` ways to teach.

    Example:
        >>> pair = Population.of([Candidate(), Candidate(pruning_ratios={"conv1": 0.5})])
        >>> len(pair), pair.ratios["conv1"].tolist()
        (2, [0.0, 0.5])
    """

    ratios: Mapping[str, NDArray[np.float64]]
    dropped: Mapping[str, NDArray[np.bool_]]
    configs: tuple[LayerConfig, ...]
    layers: Mapping[str, NDArray[np.intp]]
    criteria: Sequence[str]
    distills: Sequence[DistillConfig]

    @classmethod
    def of(cls, candidates: "Candidates") -> "Population":
        """Put candidates side by side; a population stays what it is."""
        if isinstance(candidates, Population):
            return candidates
        found = {config: None for c in candidates for config in c.layers.values()}
        configs = tuple(dict.fromkeys((LayerConfig(), *found)))
        codes = {config: code for code, config in enumerate(configs)}
        blocks = dict.fromkeys(name for c in candidates for name in c.dropped_blocks)
        chosen = [{n: codes[config] for n, config in c.layers.items()} for c in candidates]
        return cls(
            ratios=_columns([c.pruning_ratios for c in candidates], np.float64),
            dropped={n: np.array([n in c.dropped_blocks for c in candidates]) for n in blocks},
            configs=configs,
            layers=_columns(chosen, np.intp),
            criteria=[c.criterion for c in candidates],
            distills=[c.distill for c in candidates],
        )

    def __len__(self) -> int:
        return len(self.criteria)

    def __iter__(self) -> Iterator[Candidate]:
        return map(self.candidate, range(len(self)))

    def candidate(self, row: int) -> Candidate:
        """Return one candidate, canonical."""
        return Candidate(
            pruning_ratios={name: float(values[row]) for name, values in self.ratios.items()},
            dropped_blocks=tuple(name for name, gone in self.dropped.items() if gone[row]),
            criterion=self.criteria[row],
            layers={name: self.configs[codes[row]] for name, codes in self.layers.items()},
            distill=self.distills[row],
        ).canonical()

    def gone(self, blocks: Iterable[str]) -> NDArray[np.bool_]:
        """Tell which candidates drop any of some blocks, `n` booleans."""
        gone = np.zeros(len(self), dtype=bool)
        for name in blocks:
            if name in self.dropped:
                gone |= self.dropped[name]
        return gone


Candidates = Population | Sequence[Candidate]
"""Candidates one by one, or side by side."""


def _columns(rows: Sequence[Mapping[str, float]], kind: type[N]) -> dict[str, NDArray[N]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, 0) for row in rows], dtype=kind) for name in names}
