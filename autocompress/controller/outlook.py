"""Is more budget worth it? Hypervolume against trials, and where it is heading."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.core.pareto import hypervolume
from autocompress.errors import InvalidInputError, explain

FloatArray = NDArray[np.float64]

DECAYS = tuple(float(decay) for decay in np.geomspace(0.1, 3.0, 24))
"""Exponents of the power laws that are tried."""

SKIPPED = 0.1
"""Share of the trials, the first ones, that are not looked at: designs come first."""

PLAUSIBLE = 1.5
"""Multiple of the least mean squared error up to which a power law is believed."""

FEWEST = 8
"""Trials from which anything is extrapolated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What more trials are expected to add.

    Attributes:
        trials: Trials so far.
        hypervolume: What they dominate.
        more: Trials that might follow.
        expected: Hypervolume after those.
        low: The least that a plausible power law expects.
        high: The most.
        limit: What the likeliest law tends to, without end.
    """

    trials: int
    hypervolume: float
    more: int
    expected: float
    low: float
    high: float
    limit: float

    @property
    def gain(self) -> float:
        """Expected growth of the hypervolume, as a fraction of the present one."""
        return self.expected / self.hypervolume - 1.0 if self.hypervolume > 0.0 else np.inf

    def words(self) -> str:
        """Say what more trials would add."""
        if self.trials >= FEWEST and self.hypervolume <= 0.0:
            return f"none promises to meet the limits yet; what {self.more} more add is open"
        if not np.isfinite(self.high):
            return f"too few trials to tell what {self.more} more would add"
        low, high = (100.0 * (end / self.hypervolume - 1.0) for end in (self.low, self.high))
        return (
            f"{self.more} more trials are expected to add {100.0 * self.gain:.1f} % hypervolume "
            f"({low:.1f} to {high:.1f} %)"
        )

    def is_worth(self, least_gain: float) -> bool:
        """Tell whether a plausible law promises that much growth.

        Args:
            least_gain: Fraction of the present hypervolume, for example 0.01.
        """
        return self.high >= (1.0 + least_gain) * self.hypervolume


def hypervolume_curve(losses: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the hypervolume after each trial.

    Args:
        losses: `n x m`, in the order of the trials, all minimised; rows of
            infinities are trials without a result.
        reference: `m` values, fixed for all trials.

    Returns:
        `n` values that never fall.

    Example:
        >>> losses = np.array([[1.0, 2.0], [2.0, 2.0], [2.0, 1.0]])
        >>> hypervolume_curve(losses, np.array([3.0, 3.0])).tolist()
        [2.0, 2.0, 3.0]
    """
    front, volume = np.empty((0, len(reference))), 0.0
    curve = np.empty(len(losses))
    for number, row in enumerate(losses):
        if (row < reference).all() and not (front <= row).all(axis=1).any():
            front = np.concatenate([front[~(row <= front).all(axis=1)], [row]])
            volume = max(volume, hypervolume(front, reference))  # rounding errors may lower it
        curve[number] = volume
    return curve


def look_ahead(curve: FloatArray, more: int) -> Outlook:
    """Extrapolate a hypervolume curve by power laws.

    h(t) = limit - gap * t ** -decay is fitted by least squares for many decays
    (power laws describe learning curves, Domhan et al. 2015), and continued
    from the last value. Laws that fit about as well as the best give a range.

    Args:
        curve: `n` hypervolumes after 1 to n trials, never falling.
        more: Trials to look ahead, >= 0.

    Returns:
        What they are expected to add; with few trials or none, or where nothing
        has been dominated yet, anything up to infinity is plausible.

    Raises:
        InvalidInputError: If the curve falls.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or (np.diff(values) < 0.0).any() or more < 0:
        raise InvalidInputError(
            explain(
                "hypervolume curve",
                expected="a 1-d array that never falls, and trials to come",
                got=f"shape {values.shape} and {more} trials",
                remedy="use one reference point for all trials",
            )
        )
    now, trials = float(values[-1]) if len(values) else 0.0, len(values)
    if trials < FEWEST or now <= 0.0:
        return Outlook(
            trials=trials,
            hypervolume=now,
            more=more,
            expected=now,
            low=now,
            high=np.inf if more else now,
            limit=np.inf,
        )
    seen = np.arange(int(SKIPPED * trials), trials)
    counts = seen.astype(np.float64) + 1.0
    fits = [_fit(counts, values[seen], decay) for decay in DECAYS]
    errors = np.array([error for error, _ in fits])
    gaps = np.array([gap for _, gap in fits])
    decays = np.array(DECAYS)
    added = gaps * (float(trials) ** -decays - float(trials + more) ** -decays)
    best = int(np.argmin(errors))
    plausible = added[errors <= PLAUSIBLE * errors[best] + 1e-12 * now**2]
    return Outlook(
        trials=trials,
        hypervolume=now,
        more=more,
        expected=now + float(added[best]),
        low=now + float(plausible.min()),
        high=now + float(plausible.max()),
        limit=now + float(gaps[best] * trials ** -decays[best]),
    )


def _fit(trials: FloatArray, values: FloatArray, decay: float) -> tuple[float, float]:
    """Fit limit and gap for one decay; return the mean squared error and the gap, >= 0."""
    law = trials**-decay
    centred, moved = law - law.mean(), values - values.mean()
    gap = max(0.0, -float(centred @ moved) / (float(centred @ centred) or 1.0))
    return float(((moved + gap * centred) ** 2).mean()), gap
