"""Ranges of activation tensors, chosen from what calibration sees of them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocompress.errors import InvalidInputError, explain
from autocompress.transform.grids import activation_grid, activation_values

SAMPLE = 8192
"""Values kept of every batch."""

FRACTIONS = tuple(step / 20 for step in range(20, 0, -1))
"""Ranges that are tried, as fractions of the widest one."""

SMOOTHING = 0.9
"""What a moving average keeps of itself at each batch."""

PERCENTILE = 0.9999
"""Share of the values that a percentile keeps."""

BINS = 2048
"""Bins of the histogram that entropy is taken on."""

Range = tuple[float, float]


class RangeObserver:
    """Watches one activation tensor over batches.

    Attributes:
        low: Smallest value seen; None before the first batch.
        high: Largest value seen.
    """

    def __init__(self) -> None:
        self.low: float | None = None
        self.high = 0.0
        self._average: Range = (0.0, 0.0)
        self._samples: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(0)

    def watch(self, tensor: Tensor) -> None:
        """Take note of a batch; values that are not finite are refused."""
        tensor = tensor.detach()
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        if not (low > -torch.inf and high < torch.inf):
            raise InvalidInputError(
                explain(
                    "activation range",
                    expected="finite values",
                    got=(low, high),
                    remedy="check the calibration data for NaN and infinities",
                )
            )
        if self.low is None:
            self.low, self.high, self._average = low, high, (low, high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._average = (
            SMOOTHING * self._average[0] + (1 - SMOOTHING) * low,
            SMOOTHING * self._average[1] + (1 - SMOOTHING) * high,
        )
        self._samples.append(self._drawn(tensor))

    def range(self, observer: str, bits: int) -> Range:
        """Choose a range.

        Args:
            observer: One of `OBSERVERS`.
            bits: Of the grid that the range is for, 2 to 8.

        Returns:
            Its lower and upper end.
        """
        extremes = (self.low or 0.0, self.high)
        if observer == "minmax":
            return extremes
        if observer == "moving_average":
            return self._average
        sample = torch.cat(self._samples)
        if observer == "percentile":
            tail = (1.0 - PERCENTILE) / 2
            low, high = np.quantile(sample.numpy(), [tail, 1.0 - tail])
            return float(low), float(high)
        error = _squared_error if observer == "mse" else _divergence(sample, extremes)
        return _narrowed(extremes, lambda tried: error(sample, tried, bits))

    def _drawn(self, tensor: Tensor) -> Tensor:
        """Draw values at random places, without a copy of the tensor in another layout."""
        if tensor.numel() <= SAMPLE:
            return tensor.flatten().float().cpu()
        places = [
            torch.randint(size, (SAMPLE,), generator=self._generator).to(tensor.device)
            for size in tensor.shape
        ]
        return tensor[tuple(places)].float().cpu()


def _narrowed(widest: Range, error: Callable[[Range], float]) -> Range:
    """Narrow a range on both sides alike, then on each side alone, while that helps."""
    best, least = widest, error(widest)
    sides = [(1, 1), (0, 1), (1, 0)] if widest[0] < 0.0 < widest[1] else [(1, 1)]
    for lower, upper in sides:
        base = best
        for fraction in FRACTIONS[1:]:
            tried = (
                base[0] * (fraction if lower else 1.0),
                base[1] * (fraction if upper else 1.0),
            )
            found = error(tried)
            if found < least:
                best, least = tried, found
    return best


def _squared_error(sample: Tensor, tried: Range, bits: int) -> float:
    values = activation_values(sample, *activation_grid(*tried, bits), bits)
    return float((values - sample).square().sum())


def _divergence(sample: Tensor, extremes: Range) -> Callable[[Tensor, Range, int], float]:
    """Return a function that tells how far a range changes the distribution (Migacz 2017).

    Zeros are left out: every grid holds them, and after a ReLU they are half of all values.
    """
    sample = sample[sample != 0]
    low, high = min(extremes[0], 0.0), max(extremes[1], 0.0)
    counts, edges = np.histogram(sample.numpy(), bins=BINS, range=(low, high + 1e-12))

    def divergence(_: Tensor, tried: Range, bits: int) -> float:
        first = int(np.searchsorted(edges, min(tried[0], 0.0), side="right")) - 1
        last = max(first + 1, int(np.searchsorted(edges, max(tried[1], 0.0), side="left")))
        inside = counts[max(first, 0) : last].astype(np.float64)
        reference = inside.copy()
        reference[0] += counts[: max(first, 0)].sum()
        reference[-1] += counts[last:].sum()
        return _kl(reference, _merged(inside, 2**bits))

    return divergence


def _merged(counts: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Spread each level's count evenly over those of its bins that hold anything."""
    level = np.arange(len(counts)) * levels // len(counts)
    sums = np.bincount(level, counts, minlength=levels)
    filled = np.bincount(level, counts > 0, minlength=levels)
    even: NDArray[np.float64] = np.where(counts > 0, (sums / np.maximum(filled, 1))[level], 0.0)
    return even


def _kl(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the divergence of two histograms, empty bins smoothed."""
    p, q = reference + 1e-6, other + 1e-6
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())
