"""An ensemble of unlike models that predicts accuracy, with a calibrated deviation."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import scipy
import sklearn
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau
from scipy.stats import t as student_t
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge, RidgeCV

from autocompress.core.files import UNREADABLE
from autocompress.core.schema import SCHEMA_VERSION, check_number, check_record, check_version
from autocompress.errors import InvalidInputError, MissingFileError, StudyError, check_type, explain
from autocompress.predictor.columns import Columns
from autocompress.predictor.gaussian_process import GaussianProcess, fit_gaussian_processes
from autocompress.predictor.warp import Warp

FloatArray = NDArray[np.float64]

MEMBERS = ("gaussian process", "ridge", "boosted trees")
"""The models. Extra trees lowered the rank correlation wherever they changed it much."""

FOLDS = 5
"""Folds of the cross-validation that weights and calibrates the members."""

FEWEST_RANKED = 8
"""Values from which a rank correlation is told: of fewer, the mean of the others, which falls as
what is left out rises, makes it negative."""

COVERAGE = 0.9
NORMAL_QUANTILE = 1.6448536269514722
"""Share of values within the mean plus or minus so many deviations."""

PENALTIES = tuple(float(alpha) for alpha in np.logspace(-2, 3, 11))

MOST_ROWS = 400
"""Rows that the models are fitted on; of more, the best and others at random."""

BEST_SHARE = 0.2
"""Share of them that are the best."""

TREES = 60
TREES_FROM = 30
"""Boosted trees: how many, and from how many rows on they are worth their time."""

MANY_COLUMNS = 20
SMALLEST_ERROR = 1e-6
LEAST_WEIGHT = 0.02
"""Members with less weight are left out, which makes predictions quicker."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """What `fit` has learned."""

    columns: Columns
    warp: Warp
    process: GaussianProcess
    ridge: Ridge
    trees: GradientBoostingRegressor | None
    weights: FloatArray
    widening: float
    stretch: float


class AccuracyPredictor:
    """Predict accuracy from the description of a candidate.

    A Gaussian process, ridge regression and gradient-boosted trees are fitted
    on a scale on which errors of the accuracy multiply, or on the plain one
    where that is likelier. Their weights are inversely proportional to their
    squared cross-validated mean squared errors. The standard deviation joins
    the process' own with the members' disagreement, and is scaled so that
    nine of ten values that were left out lie within 1.645 of it (conformal
    calibration, Lei et al. 2018). Values that collapsed are cut off at a
    floor, so that they do not bend the models, but count in the calibration.

    Attributes:
        rank_correlation_: Kendall's tau of predictions that were left out of
            the fit against their values; nan where all values are equal or
            fewer than `FEWEST_RANKED`.
        weights_: Weight of each of `MEMBERS`, adding up to 1.

    Example:
        >>> X = np.arange(12.0)[:, None]
        >>> predictor = AccuracyPredictor(seed=0).fit(X, 0.9 - 0.01 * X[:, 0])
        >>> mean, deviation = predictor.predict([[2.5]], return_std=True)
        >>> bool(abs(mean[0] - 0.875) < 0.005)
        True
    """

    def __init__(
        self, seed: int = 0, *, common_scale: Sequence[int] = (), limit: float | None = None
    ) -> None:
        """Prepare a predictor.

        Args:
            seed: Decides folds and trees; equal seeds and data give equal
                predictions.
            common_scale: Columns in the same unit, such as sensitivities, that
                keep their sizes relative to each other. Other columns are
                scaled one by one.
            limit: A value that predictions are compared with; what is cut off lies well below it.
        """
        self.seed, self.limit = seed, limit
        self.common_scale = tuple(common_scale)
        self._fitted: _Fitted | None = None

    def fit(self, X: ArrayLike, y: ArrayLike) -> "AccuracyPredictor":  # noqa: N803  as scikit-learn
        """Fit to evaluated candidates.

        Args:
            X: `n x d` numbers that describe the candidates, n >= 2.
            y: `n` accuracies, or other values where higher is better.

        Returns:
            The predictor.

        Raises:
            InvalidInputError: If shapes do not fit or values are not finite.
        """
        table, values = _checked_rows(X), np.asarray(y, dtype=np.float64)
        if len(table) < 2 or values.shape != (len(table),):
            raise _refusal("'y'", f"{max(2, len(table))} values, one per row of 'X'", values.shape)
        if not np.isfinite(values).all():
            raise _refusal("'y'", "finite values", "NaN or infinity")
        if any(not 0 <= column < table.shape[1] for column in self.common_scale):
            raise _refusal("'common_scale'", f"columns below {table.shape[1]}", self.common_scale)
        self._X, self._y = table, values
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            self._fit(table, values)  # checked above; many small fits wait for their checks
        return self

    def _fit(self, table: FloatArray, values: FloatArray) -> None:
        """Fit, weigh and calibrate the members."""
        rng = np.random.default_rng(self.seed)
        rows = _representative(values, rng)
        table, values = table[rows], values[rows]
        columns = Columns.fit(table, self.common_scale)
        wide, narrow = columns.expand(table), columns.scale(table)
        warp, target, process = _likeliest_scale(wide, values, self.limit)
        ridge = RidgeCV(PENALTIES).fit(wide, target)
        folds = np.array_split(rng.permutation(len(values)), min(FOLDS, len(values)))
        left_out = np.zeros((len(values), len(MEMBERS)))
        left_out[:, 0], deviation = process.left_out(target, folds)
        with_trees = len(values) >= TREES_FROM
        for fold in folds:
            others = np.setdiff1d(np.arange(len(values)), fold)
            alone = Ridge(ridge.alpha_).fit(wide[others], target[others])
            left_out[fold, 1] = alone.predict(wide[fold])
            if with_trees:
                trees = self._trees(narrow.shape[1]).fit(narrow[others], target[others])
                left_out[fold, 2] = trees.predict(narrow[fold])
        weights = _weights(((left_out - target[:, None]) ** 2).mean(axis=0), with_trees)
        place, spread = _combine(left_out, deviation, weights, warp)
        mean = warp.inverse(place)
        self._fitted = _Fitted(
            columns=columns,
            warp=warp,
            process=process,
            ridge=ridge,
            trees=self._trees(narrow.shape[1]).fit(narrow, target) if weights[2] else None,
            weights=weights,
            widening=_widening(np.abs(values - mean) / (warp.slope(place) * spread)),
            stretch=_widening(np.abs(target - place) / spread),
        )
        self.weights_ = tuple(float(weight) for weight in weights)
        ranked = len(values) >= FEWEST_RANKED and np.ptp(values) > 0.0
        self.rank_correlation_ = (
            float(kendalltau(mean, values).statistic) if ranked else float("nan")
        )

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> FloatArray: ...  # noqa: N803

    @overload
    def predict(
        self,
        X: ArrayLike,  # noqa: N803
        return_std: Literal[True],
    ) -> tuple[FloatArray, FloatArray]: ...

    def predict(
        self,
        X: ArrayLike,  # noqa: N803  as scikit-learn
        return_std: bool = False,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predict the accuracy of candidates.

        Args:
            X: `m x d` numbers that describe them.
            return_std: Whether to return the standard deviations too.

        Returns:
            `m` means; with `return_std` also `m` standard deviations, > 0.

        Raises:
            InvalidInputError: If the predictor is not fitted, the shape does
                not fit or values are not finite.
        """
        model, place, spread = self._places(X)
        mean = model.warp.inverse(place)
        return (mean, model.widening * model.warp.slope(place) * spread) if return_std else mean

    def predict_bounds(self, X: ArrayLike, deviations: ArrayLike) -> FloatArray:  # noqa: N803
        """Predict the accuracies that lie some standard deviations above the mean.

        They are added on the scale that is modelled: where that is a
        logarithm of the gap, a bound is never far above the best value seen.

        Args:
            X: `m x d` numbers that describe the candidates.
            deviations: `b` numbers of calibrated standard deviations; 0 for the mean.

        Returns:
            `b x m` values.
        """
        model, place, spread = self._places(X)
        steps = np.multiply.outer(np.asarray(deviations, dtype=np.float64), spread)
        return model.warp.inverse(place + model.stretch * steps)

    def _places(self, X: ArrayLike) -> tuple[_Fitted, FloatArray, FloatArray]:  # noqa: N803
        """Return what was fitted, and means and deviations on the modelled scale."""
        if self._fitted is None:
            raise _refusal("the predictor", "data before predictions", "none")
        model, table = self._fitted, _checked_rows(X)
        if table.shape[1] != self._X.shape[1]:
            raise _refusal("'X'", f"{self._X.shape[1]} columns", table.shape[1])
        wide, narrow = model.columns.expand(table), model.columns.scale(table)
        members = np.zeros((len(table), len(MEMBERS)))
        members[:, 0], deviation = model.process.predict(wide)
        if model.weights[1]:
            members[:, 1] = model.ridge.predict(wide)
        if model.trees is not None:
            members[:, 2] = model.trees.predict(narrow)
        return model, *_combine(members, deviation, model.weights, model.warp)

    def save(self, path: str | Path) -> None:
        """Write data, seed and versions, from which `load` fits the predictor again.

        Args:
            path: The file, a NumPy archive without pickles.

        Raises:
            InvalidInputError: If the predictor is not fitted.
        """
        if self._fitted is None:
            raise _refusal("the predictor", "data before it is saved", "none")
        record = {
            "schema_version": SCHEMA_VERSION,
            "seed": self.seed,
            "common_scale": list(self.common_scale),
            "limit": self.limit,
            "versions": _versions(),
        }
        with Path(path).open("wb") as file:
            np.savez_compressed(file, X=self._X, y=self._y, record=json.dumps(record))

    @classmethod
    def load(cls, path: str | Path) -> "AccuracyPredictor":
        """Read a file that `save` wrote, and fit the predictor again.

        Libraries of other versions may fit it slightly differently; the log says so.

        Raises:
            MissingFileError: If there is no such file.
            StudyError: If it is damaged; InvalidInputError: if another version wrote it.
        """
        decoded: object = None
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                table, values = archive["X"], archive["y"]
                decoded = json.loads(str(archive["record"]))
            record = _checked_record(decoded)
            scale, limit = record["common_scale"], record.get("limit")
            fitted = cls(record["seed"], common_scale=scale, limit=limit).fit(table, values)
        except FileNotFoundError as error:
            raise MissingFileError(
                explain(str(path), expected="a saved predictor", got="no file", remedy="save one")
            ) from error
        except (ValueError, TypeError, KeyError, RecursionError, *UNREADABLE) as error:
            check_version(decoded, what=f"'{path}'")
            raise StudyError(
                explain(
                    str(path),
                    expected="a saved predictor",
                    got="a damaged file",
                    remedy="delete it and fit the predictor again",
                )
            ) from error
        if record["versions"] != _versions():
            _log.warning("%s was fitted with %s; now %s", path, record["versions"], _versions())
        return fitted

    def _trees(self, columns: int) -> GradientBoostingRegressor:
        """Make trees that see a part of many columns at a time."""
        return GradientBoostingRegressor(
            n_estimators=TREES,
            learning_rate=0.15,
            max_depth=3,
            subsample=0.7,
            max_features=0.5 if columns < MANY_COLUMNS else 0.2,
            random_state=self.seed,
        )


def _likeliest_scale(
    table: FloatArray, values: FloatArray, limit: float | None
) -> tuple[Warp, FloatArray, GaussianProcess]:
    """Choose between the logarithm of the gap and the plain scale (Snelson et al. 2004)."""
    warps = [Warp.fit(values, logarithmic=flag, limit=limit) for flag in (True, False)]
    targets = [warp.forward(values) for warp in warps]
    processes = fit_gaussian_processes(table, targets)
    likelihoods = [
        process.evidence - float(np.log(warp.slope(target)).sum())
        for process, warp, target in zip(processes, warps, targets, strict=True)
    ]
    best = int(np.argmax(likelihoods))
    return warps[best], targets[best], processes[best]


def _weights(errors: FloatArray, with_trees: bool) -> FloatArray:
    """Weigh members by their mean squared errors; drop those that hardly count."""
    errors = np.where([True, True, with_trees], errors, np.inf)
    relative = np.maximum(errors / (errors[:2].max() or 1.0), SMALLEST_ERROR)
    trust = relative**-2
    trust[trust < LEAST_WEIGHT * trust.sum()] = 0.0
    return np.asarray(trust / trust.sum())


def _combine(
    members: FloatArray, deviation: FloatArray, weights: FloatArray, warp: Warp
) -> tuple[FloatArray, FloatArray]:
    """Return mean, not below the floor, and standard deviation on the modelled scale."""
    mean = members @ weights
    disagreement = ((members - mean[:, None]) ** 2) @ weights
    return np.maximum(mean, warp.lowest), np.sqrt(deviation**2 + disagreement)


def _widening(errors: FloatArray) -> float:
    """Return the factor that makes intervals cover `COVERAGE` of errors in deviations.

    Of fewer than nine errors the largest does not cover as many of those to come: it is taken
    times what Student's t has beyond the normal distribution.
    """
    count, rank = len(errors), math.ceil((len(errors) + 1) * COVERAGE)
    quantile = float(np.sort(errors)[min(count, rank) - 1])
    if rank > count:
        quantile *= float(student_t.ppf(0.5 + 0.5 * COVERAGE, count - 1)) / NORMAL_QUANTILE
    return max(quantile / NORMAL_QUANTILE, SMALLEST_ERROR)


def _representative(values: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose the rows to fit on, in order: all, or the best and others at random."""
    if len(values) <= MOST_ROWS:
        return np.arange(len(values))
    best = round(BEST_SHARE * MOST_ROWS)
    order = np.argsort(-values, kind="stable")
    others = rng.choice(order[best:], MOST_ROWS - best, replace=False)
    return np.sort(np.concatenate([order[:best], others]))


def _checked_rows(X: ArrayLike) -> FloatArray:  # noqa: N803  as scikit-learn
    table = np.asarray(X, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 1:
        raise _refusal("'X'", "an n x d array with d >= 1", table.shape)
    if not np.isfinite(table).all():
        raise _refusal("'X'", "finite values", "NaN or infinity")
    return table


def _checked_record(decoded: object) -> Mapping[str, Any]:
    """Check what is kept beside the data of a saved predictor."""
    keys = ("seed", "common_scale", "versions")
    record = check_record(decoded, what="the record", keys=(*keys, "limit"), required=keys)
    check_type("'seed'", record["seed"], int)
    for column in check_type("'common_scale'", record["common_scale"], list):
        check_type("'common_scale'", column, int)
    if record.get("limit") is not None:
        check_number("'limit'", record["limit"], low=-math.inf)
    return record


def _versions() -> dict[str, str]:
    return {module.__name__: module.__version__ for module in (np, scipy, sklearn)}


def _refusal(what: str, expected: str, got: object) -> InvalidInputError:
    return InvalidInputError(explain(what, expected=expected, got=got, remedy="correct it"))
