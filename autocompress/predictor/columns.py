"""Raw predictor inputs as numbers of comparable size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST_LEVELS = 6
"""Distinct values up to which each value of a column gets an indicator of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Scaling of `d` raw columns, and indicators for those with few values.

    Attributes:
        shift: `d` values that become 0.
        unit: `d` lengths that become 1, > 0.
        levels: For each column the values that get an indicator, maybe none.
    """

    shift: FloatArray
    unit: FloatArray
    levels: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, table: FloatArray, common_scale: Sequence[int] = ()) -> "Columns":
        """Take ranges and levels from an `n x d` table.

        Args:
            table: The raw inputs.
            common_scale: Columns in the same unit, such as sensitivities:
                divided by one number, the mean of their standard deviations,
                so that one that varies more keeps saying more.
        """
        shared = np.zeros(table.shape[1], dtype=bool)
        shared[list(common_scale)] = True
        low, span = table.min(axis=0), np.ptp(table, axis=0)
        unit = np.where(span > 0.0, span, 1.0)
        unit[shared] = table[:, shared].std(axis=0).mean() if span[shared].any() else 1.0
        levels = [
            () if same else _few(np.unique(column))
            for column, same in zip(table.T, shared, strict=True)
        ]
        shift = np.where(shared, table.mean(axis=0), low)
        return cls(shift=shift, unit=unit, levels=tuple(levels))

    def scale(self, table: FloatArray) -> FloatArray:
        """Return the `n x d` table with every column shifted and scaled."""
        return (table - self.shift) / self.unit

    def expand(self, table: FloatArray) -> FloatArray:
        """Return the scaled table and the indicators beside it, `n x (d + indicators)`."""
        where = [number for number, values in enumerate(self.levels) for _ in values]
        values = np.array([value for values in self.levels for value in values])
        indicators = (table[:, where] == values).astype(np.float64)
        return np.concatenate([self.scale(table), indicators], axis=1)


def _few(values: FloatArray) -> tuple[float, ...]:
    """Return three or more values if they are few; two need no indicators."""
    return tuple(values.tolist()) if 3 <= len(values) <= MOST_LEVELS else ()
