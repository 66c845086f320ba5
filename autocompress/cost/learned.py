"""From sums of kernels to latencies: a fit that starts at the physics, and what it leaves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

Array = NDArray[np.float64]

PENALTIES = (100.0, 10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""How strongly the weights of columns are held at what the physics says."""

FOLDS = 5
FEWEST_FOR_CHOICE = 8
FEWEST_FOR_RESIDUALS = 30
"""Networks below which a choice is not left to cross-validation, and no regressor is tried."""

UNKNOWN_ERROR = 0.15
"""Relative standard deviation that is assumed where too few networks were measured."""

Residuals = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts latencies from the columns of `LatencyFeatures`.

    Attributes:
        weights: What each column counts for.
        offset_ms: What every network takes beside.
        error: Relative standard deviation of predictions, from cross-validation.
        chosen: What cross-validation chose, in words.
    """

    weights: Array
    offset_ms: float
    error: float
    chosen: str
    _residuals: Residuals | None = field(default=None, repr=False)

    def predict(self, table: Array) -> tuple[Array, Array]:
        """Predict latencies.

        Args:
            table: `n x d` columns.

        Returns:
            `n` milliseconds and `n` standard deviations.
        """
        base = _positive(table @ self.weights + self.offset_ms, table)
        if self._residuals is None:
            return base, self.error * base
        shift, spread = self._residuals(table)
        found: Array = base * np.exp(shift)
        return found, found * np.maximum(self.error, spread)


def fit_latency(table: Array, latencies: Array, prior: Array, *, seed: int = 0) -> LatencyModel:
    """Fit a model to networks that were measured from end to end.

    A line in the columns is fitted by least squares of the relative error,
    held at the prior by a ridge; the strength, and whether a Gaussian process
    or boosted trees then correct the logarithm of what is left, is chosen by
    cross-validation.

    Args:
        table: `n x d` columns; n may be 0, and then the prior stands.
        latencies: `n` measured milliseconds.
        prior: `d` weights of the physics.
        seed: Seed of the regressors.
    """
    if not len(table):
        return LatencyModel(weights=prior, offset_ms=0.0, error=UNKNOWN_ERROR, chosen="sum")
    folds = np.random.default_rng(seed).permutation(len(table)) % FOLDS
    if len(table) < FEWEST_FOR_CHOICE:
        weights, offset = _ridge(table, latencies, prior, PENALTIES[2])
        return LatencyModel(
            weights=weights, offset_ms=offset, error=UNKNOWN_ERROR / 2, chosen="line"
        )
    scores = {}
    for penalty in PENALTIES:
        errors = np.empty(len(table))
        for fold in range(FOLDS):
            out = folds == fold
            weights, offset = _ridge(table[~out], latencies[~out], prior, penalty)
            errors[out] = np.log(
                _positive(table[out] @ weights + offset, table[out]) / latencies[out]
            )
        scores[penalty] = errors
    penalty = min(scores, key=lambda p: _loss(scores[p]))
    weights, offset = _ridge(table, latencies, prior, penalty)
    line = LatencyModel(
        weights=weights, offset_ms=offset, error=_spread(scores[penalty]), chosen="line"
    )
    if len(table) < FEWEST_FOR_RESIDUALS:
        return line
    return _with_residuals(line, table, latencies, -scores[penalty], folds, seed)


def _with_residuals(
    line: LatencyModel,
    table: Array,
    latencies: Array,
    left: Array,
    folds: NDArray[np.int_],
    seed: int,
) -> LatencyModel:
    """Add the regressor that cross-validation prefers, if it prefers one to the line alone."""
    best, best_errors = "", -left
    inputs = _scaled(table, table)
    for name in ("gaussian process", "boosted trees"):
        errors = np.empty(len(table))
        for fold in range(FOLDS):
            out = folds == fold
            regressor = _regressor(name, seed).fit(inputs[~out], left[~out])
            errors[out] = regressor.predict(inputs[out]) - left[out]
        if _loss(errors) < 0.95 * _loss(best_errors):
            best, best_errors = name, errors
    if not best:
        return line
    base = _positive(table @ line.weights + line.offset_ms, table)
    regressor = _regressor(best, seed).fit(inputs, np.log(latencies / base))

    def residuals(fresh: Array) -> tuple[Array, Array]:
        rows = _scaled(fresh, table)
        if best == "gaussian process":
            shift, spread = regressor.predict(rows, return_std=True)
            return shift, spread
        return regressor.predict(rows), np.zeros(len(rows))

    return LatencyModel(
        weights=line.weights,
        offset_ms=line.offset_ms,
        error=_spread(best_errors),
        chosen=f"line and {best}",
        _residuals=residuals,
    )


def _ridge(table: Array, latencies: Array, prior: Array, penalty: float) -> tuple[Array, float]:
    """Fit weights and an offset, relative errors squared, weights drawn to the scaled prior."""
    sums = table @ prior
    scale = float(np.median(latencies / np.maximum(sums, 1e-9)))
    start = np.append(scale * prior, 0.0)
    design = np.column_stack([table, np.full(len(table), latencies.min())]) / latencies[:, None]
    reach = np.maximum(np.sqrt((design**2).mean(axis=0)), 1e-3)
    scaled = design / reach
    gap = 1.0 - design @ start
    hold = np.sqrt(penalty * 1e-2 * len(table))
    system = np.vstack([scaled, hold * np.eye(scaled.shape[1])])
    aims = np.append(gap, np.zeros(scaled.shape[1]))
    # No column takes less than no time: that keeps the fit sensible outside of what was measured.
    change = lsq_linear(system, aims, (-start * reach - 1e-12, np.inf)).x
    found = start + change / reach
    return found[:-1], float(found[-1] * latencies.min())


def _positive(values: Array, table: Array) -> Array:
    """Keep predictions above a tenth of the plain sum of kernels."""
    floor: Array = np.maximum(0.1 * table[:, :2].sum(axis=1), 1e-6)
    return np.maximum(values, floor)


def _loss(errors: Array) -> float:
    """Score errors of logarithms: their mean, and how wide the worst are."""
    size = np.abs(errors)
    return float(size.mean() + 0.5 * np.quantile(size, 0.95))


def _spread(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _scaled(rows: Array, table: Array) -> Array:
    """Describe rows by what share each column has of the whole, and by the whole's logarithm."""
    sums = rows.sum(axis=1, keepdims=True) + 1e-9
    shares = np.column_stack([rows / sums, np.log(sums)])
    own = table.sum(axis=1, keepdims=True) + 1e-9
    reference = np.column_stack([table / own, np.log(own)])
    spread = reference.std(axis=0)
    result: Array = (shares - reference.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    return result


def _regressor(name: str, seed: int) -> Any:
    if name == "boosted trees":
        from sklearn.ensemble import GradientBoostingRegressor

        return GradientBoostingRegressor(
            n_estimators=150, max_depth=2, learning_rate=0.05, subsample=0.7, random_state=seed
        )
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1e-2, (1e-5, 1.0)) * RBF(3.0, (0.5, 30.0)) + WhiteKernel(
        1e-3, (1e-6, 1e-1)
    )
    return GaussianProcessRegressor(kernel, random_state=seed)
