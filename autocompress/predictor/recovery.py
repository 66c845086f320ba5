"""Predict accuracy after full fine-tuning from what the proxy shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autocompress.errors import InvalidInputError, explain

FloatArray = NDArray[np.float64]

FEATURES = ("proxy_gap", "dropped_share", "pruned_share", "squared_bit_noise")
"""What a row of `X` holds: accuracy lost by the proxy; shares in [0, 1] of the
multiply-accumulates lost to dropped blocks and to pruned channels; and the
mean over layers of 4**(8 - weight_bits) / 4**6, the noise of the grids."""

PRIOR = (0.2, 0.02, 0.05, 0.05)
"""Weights assumed before anything was trained: a fifth of the gap stays."""

PRIOR_STRENGTH = 0.03
"""How much evidence the prior is worth, in units of the features."""

LEAST_DEVIATION = 0.002
"""Standard deviation of residuals, in accuracy, that is assumed at least."""

EXPONENT_PRIOR, EXPONENT_STRENGTH = 0.5, 0.02
FLOOR_PRIOR, FLOOR_STRENGTH = 0.1, 0.06
"""Exponent and floor of learning assumed before any finalist was trained; a distance of one from
either weighs as much as one finalist that is mispredicted by this accuracy."""

EXPONENTS, FLOORS = np.linspace(0.0, 1.5, 151), np.linspace(0.0, 0.5, 51)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """How much of a loss of accuracy stays, the more images are trained on.

    A power of the images with a floor (Cortes et al. 1993): a part of what a candidate lacks
    after a short fine-tune is what so small a network never learns. Of 40 random candidates of
    ResNet-20, 12 lacked at most 12 points after 5,000 images; what they lacked after 25,000 the
    prior tells with a root mean square error of 0.30 points, without its floor of 0.49
    (docs/benchmarks/training.json). An exponent of 0.41 alone does as well there: what tells the
    two apart is trainings that are a hundred times as long, as those of finalists may be.

    Attributes:
        exponent: Of the images, [0, 1.5].
        floor: Share of a short fine-tune's loss that no training wins back, [0, 0.5].
    """

    exponent: float = EXPONENT_PRIOR
    floor: float = FLOOR_PRIOR

    @classmethod
    def fit(cls, short: FloatArray, full: FloatArray, ratio: FloatArray) -> "LearningCurve":
        """Fit to candidates that were trained shortly, then fully, shrunk towards the prior.

        Args:
            short: `n` accuracies lost after a short fine-tune, >= 0.
            full: What the same candidates lost after a full one, >= 0.
            ratio: Images of the short fine-tune over those of the full one, (0, 1].

        Example:
            >>> nothing = np.array([])
            >>> LearningCurve.fit(nothing, nothing, nothing)
            LearningCurve(exponent=0.5, floor=0.1)
        """
        exponents, floors = np.meshgrid(EXPONENTS, FLOORS, indexing="ij")
        errors = (EXPONENT_STRENGTH * (exponents - EXPONENT_PRIOR)) ** 2
        errors += (FLOOR_STRENGTH * (floors - FLOOR_PRIOR)) ** 2
        for lost, left, share in zip(short, full, ratio, strict=True):
            errors += (left - lost * (floors + (1.0 - floors) * share**exponents)) ** 2
        best = np.unravel_index(np.argmin(errors), errors.shape)
        return cls(exponent=float(exponents[best]), floor=float(floors[best]))

    def left(self, ratio: float) -> float:
        """Return the share of a short fine-tune's loss that stays after a full one.

        Args:
            ratio: As in `fit`.
        """
        return float(self.floor + (1.0 - self.floor) * ratio**self.exponent)


@dataclass(frozen=True, slots=True)
class RecoveryModel:
    """A non-negative linear model of the accuracy that training does not recover.

    Attributes:
        weights: One weight per feature, >= 0.
        deviation: Standard deviation of the residuals, in accuracy.
        examples: Trained candidates that it was fitted on.
        moments: Sums over them of products of each two features, as rows.
    """

    weights: tuple[float, ...] = PRIOR
    deviation: float = 0.02
    examples: int = 0
    moments: tuple[tuple[float, ...], ...] = ((0.0,) * len(FEATURES),) * len(FEATURES)

    @classmethod
    def fit(cls, X: FloatArray, y: FloatArray) -> "RecoveryModel":  # noqa: N803  as scikit-learn
        """Fit to trained candidates, shrunk towards the prior.

        Non-negative least squares on the rows, with one pseudo-row for each
        feature that pulls its weight to the prior.

        Args:
            X: `n x 4` features, see `FEATURES`.
            y: `n` accuracies lost against the original after training.

        Raises:
            InvalidInputError: If shapes do not fit or values are not finite.
        """
        table, lost = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if table.ndim != 2 or table.shape != (len(lost), len(FEATURES)):
            raise InvalidInputError(
                explain(
                    "'X'",
                    expected=f"shape ({len(lost)}, {len(FEATURES)})",
                    got=table.shape,
                    remedy="give one row of features per trained candidate",
                )
            )
        if not (np.isfinite(table).all() and np.isfinite(lost).all()):
            raise InvalidInputError(
                explain(
                    "'X' and 'y'", expected="finite values", got="NaN", remedy="drop failed trials"
                )
            )
        if len(lost) == 0:
            return cls()
        rows = np.vstack([table, PRIOR_STRENGTH * np.eye(len(FEATURES))])
        targets = np.concatenate([lost, PRIOR_STRENGTH * np.array(PRIOR)])
        weights, _ = nnls(rows, targets)
        residuals = lost - table @ weights
        spread = float(np.sqrt((residuals**2).sum() / max(1, len(lost) - 1)))
        return cls(
            weights=tuple(float(w) for w in weights),
            deviation=max(spread, LEAST_DEVIATION),
            examples=len(lost),
            moments=tuple(tuple(float(sum_) for sum_ in row) for row in table.T @ table),
        )

    def predict(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Predict the accuracy that stays lost after training, per row of `X`.

        A weight is uncertain by as much as itself, or as its prior, as far as
        nothing was trained that tells; so the deviation grows away from what was.

        Returns:
            `n` means, >= 0, and `n` standard deviations of what is not noise.

        Example:
            >>> mean, deviation = RecoveryModel().predict(np.array([[0.5, 0.0, 0.0, 0.0]]))
            >>> float(mean[0].round(3)), float(deviation[0].round(3))
            (0.1, 0.1)
        """
        rows = np.asarray(X, dtype=np.float64)
        doubt = np.maximum(self.weights, PRIOR) ** -2.0
        precision = np.array(self.moments) / self.deviation**2 + np.diag(doubt)
        spread = (rows @ np.linalg.inv(precision) * rows).sum(axis=1)
        return rows @ np.array(self.weights), np.sqrt(np.maximum(spread, 0.0))
