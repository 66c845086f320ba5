"""Monotone scales on which accuracies are nearly additive."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

OFFSET = 0.1
"""Gap, in units of the scale, that is added so that the best is no infinity away."""

REACH = 3.0
"""Multiples of the distance from median to upper decile at which collapses are cut off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warp:
    """An increasing map of accuracies to the scale on which they are modelled.

    Attributes:
        floor: Values below count as this: how far a collapse falls says nothing.
        top: The best value seen.
        scale: What gaps to the best are measured in, > 0.
        logarithmic: Whether the scale is minus the logarithm of the gap, so
            that factors of the error are steps of equal size; else the values
            are only shifted and scaled.
    """

    floor: float
    top: float
    scale: float
    logarithmic: bool

    @classmethod
    def fit(cls, y: FloatArray, *, logarithmic: bool, limit: float | None = None) -> "Warp":
        """Choose floor, top and scale from `n` values, n >= 1; higher is better.

        A limit, which decides what is feasible, lies above the floor, as far as it is from the top.
        """
        middle, high = np.quantile(y, (0.5, 0.9))
        floor = float(middle - REACH * (high - middle)) if high > middle else float(y.min())
        top = float(y.max())
        if limit is not None:
            floor = min(floor, limit - max(float(high - middle), abs(top - limit)))
        gap = float(np.median(top - np.maximum(y, floor)))
        spread = float(np.std(np.maximum(y, floor)))
        return cls(floor=floor, top=top, scale=gap or spread or 1.0, logarithmic=logarithmic)

    @property
    def lowest(self) -> float:
        """Place of the floor on the scale."""
        return float(self.forward(np.array(self.floor)))

    def forward(self, y: FloatArray) -> FloatArray:
        """Map values to the scale."""
        gap = (self.top - np.clip(y, self.floor, self.top)) / self.scale
        return -np.log(gap + OFFSET) if self.logarithmic else -gap

    def inverse(self, z: FloatArray) -> FloatArray:
        """Map back; never more than `OFFSET` scales above the best if logarithmic."""
        gap = np.exp(-z) - OFFSET if self.logarithmic else -z
        return np.asarray(self.top - self.scale * gap)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return d inverse / d z, > 0."""
        return self.scale * (np.exp(-z) if self.logarithmic else np.ones_like(z))
