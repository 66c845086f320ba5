"""A Gaussian process that is additive in its inputs, with interactions on top."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

FloatArray = NDArray[np.float64]

LINEAR_SHARES = (0.0, 0.3, 0.7, 0.95)
LENGTHSCALES = (0.5, 1.0, 2.0, 4.0)
NOISES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Hyper-parameters that the marginal likelihood chooses from: shares of the linear kernel,
lengthscales in root-median distances, and noise variances relative to the kernel's."""

LEAST_VARIANCE = 1e-9
"""Relative variance that rounding errors may not undercut."""

SMALLEST_AMPLITUDE = 1e-12
"""Amplitude where all targets are equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianProcess:
    """A fitted process with kernel w * linear + (1 - w) * Matern-5/2.

    The linear part makes it additive over inputs, and over the values of
    inputs that come with indicators; the Matern part holds what pairs of
    them do together (Rasmussen and Williams 2006, chapters 2, 4 and 5).

    Attributes:
        table: `n x p` centred training inputs.
        centre: `p` means of the inputs.
        mean: Mean of the targets.
        scale: Standard deviation of the targets.
        share: w, the linear share.
        length: Squared lengthscale.
        norm: Mean squared norm of the centred inputs.
        noise: Noise variance relative to the kernel's.
        amplitude: Variance of the process, of targets scaled by `scale`.
        weights: `n` weights of the training points.
        precision: `n x n` inverse of the kernel with noise.
        evidence: Log marginal likelihood of the targets, in nats.
    """

    table: FloatArray
    centre: FloatArray
    mean: float
    scale: float
    share: float
    length: float
    norm: float
    noise: float
    amplitude: float
    weights: FloatArray
    precision: FloatArray
    evidence: float

    def predict(self, table: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation, noise left out, of `m x p` inputs."""
        rows = table - self.centre
        cross = _kernel(*_products(rows, self.table), self.share, self.length, self.norm)
        prior = self.share * (rows**2).sum(axis=1) / self.norm + 1.0 - self.share
        left = np.maximum(prior - ((cross @ self.precision) * cross).sum(axis=1), LEAST_VARIANCE)
        mean = self.mean + self.scale * (cross @ self.weights)
        return mean, self.scale * np.sqrt(self.amplitude * left)

    def left_out(
        self, y: FloatArray, folds: Sequence[NDArray[np.int64]]
    ) -> tuple[FloatArray, FloatArray]:
        """Predict each fold from the others, with unchanged hyper-parameters.

        The mean is unknown there: that of all targets, with inputs that are centred on all of
        them, would tell what was left out (universal kriging, Rasmussen and Williams 2006, 2.7).
        """
        mean, variance = np.empty(len(y)), np.empty(len(y))
        sums = self.precision.sum(axis=0)
        contrasts = self.precision - np.outer(sums, sums) / sums.sum()
        errors = contrasts @ y
        for fold in folds:
            block = np.linalg.inv(contrasts[np.ix_(fold, fold)])
            mean[fold] = y[fold] - block @ errors[fold]
            variance[fold] = block.diagonal() - self.noise
        return mean, self.scale * np.sqrt(self.amplitude * np.maximum(variance, LEAST_VARIANCE))


def fit_gaussian_processes(
    table: FloatArray, targets: Sequence[FloatArray]
) -> list[GaussianProcess]:
    """Fit one process for each of several targets of the same inputs.

    Args:
        table: `n x p` inputs of comparable size, n >= 2.
        targets: Arrays of `n` values. They share the decompositions of the
            kernel, which are most of the work.

    Returns:
        The processes of highest marginal likelihood on the grid, in order.
    """
    centre = table.mean(axis=0)
    rows = table - centre
    norm = float((rows**2).sum(axis=1).mean()) or 1.0
    inner, distances = _products(rows, rows)
    unit = float(np.median(distances[np.triu_indices(len(rows), 1)])) or 1.0
    scaled = []
    for target in targets:
        spread = float(target.std()) or 1.0
        scaled.append((float(target.mean()), spread, (target - target.mean()) / spread))
    best: list[GaussianProcess | None] = [None] * len(targets)
    for share, factor in product(LINEAR_SHARES, LENGTHSCALES):
        length = unit * factor**2
        values, vectors = eigh(_kernel(inner, distances, share, length, norm))
        for number, (mean, spread, target) in enumerate(scaled):
            evidence, noise, amplitude = _likeliest(np.maximum(values, 0.0), vectors.T @ target)
            evidence -= len(rows) * np.log(spread)
            known = best[number]
            if known is None or evidence > known.evidence:
                precision = (vectors / (np.maximum(values, 0.0) + noise)) @ vectors.T
                best[number] = GaussianProcess(
                    table=rows,
                    centre=centre,
                    mean=mean,
                    scale=spread,
                    share=share,
                    length=length,
                    norm=norm,
                    noise=noise,
                    amplitude=amplitude,
                    weights=precision @ target,
                    precision=precision,
                    evidence=evidence,
                )
    return [process for process in best if process is not None]


def _likeliest(values: FloatArray, projected: FloatArray) -> tuple[float, float, float]:
    """Return the highest log likelihood, up to a constant, with its noise and amplitude."""
    found = []
    for noise in NOISES:
        amplitude = max(float((projected**2 / (values + noise)).mean()), SMALLEST_AMPLITUDE)
        fit = len(values) * np.log(amplitude) + np.log(values + noise).sum()
        found.append((float(-0.5 * fit), noise, amplitude))
    return max(found)


def _kernel(
    inner: FloatArray, distances: FloatArray, share: float, length: float, norm: float
) -> FloatArray:
    """Evaluate the kernel, given inner products and squared distances."""
    radius = np.sqrt(5.0 * distances / length)
    matern = (1.0 + radius + radius**2 / 3.0) * np.exp(-radius)
    return np.asarray(share * inner / norm + (1.0 - share) * matern)


def _products(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the `n x m` inner products and squared distances of `n` and `m` rows."""
    inner = a @ b.T
    norms, others = (np.einsum("ij,ij->i", table, table) for table in (a, b))
    return inner, np.maximum(norms[:, None] + others - 2.0 * inner, 0.0)
