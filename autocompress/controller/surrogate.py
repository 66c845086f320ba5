"""Predictors of all objectives and constraints that only trials reveal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.landscape import History, Landscape, Mask, View
from autocompress.core.seeds import derive_seed
from autocompress.predictor.ensemble import AccuracyPredictor

FloatArray = NDArray[np.float64]

SAME = 1e-9
"""Relative difference between numbers that are the same but for rounding."""

LEAST_VALUES = 2
"""Values of a constraint from which it is predicted."""


class Surrogate:
    """Accuracy and whatever else is not exact, predicted from a history.

    Attributes:
        rank_correlations: By the number of each predicted objective, Kendall's
            tau of predictions that were left out of the fit.
        weights: By number, the weights of the predictor's members.
    """

    def __init__(self, landscape: Landscape, history: History, seed: int) -> None:
        """Fit to a history; costs are what the landscape computes."""
        self._landscape = landscape
        self._objectives = history.losses.shape[1]
        table, features = landscape.inputs(landscape.view(history.rows))

        def fit(y: FloatArray, known: Mask, purpose: str, limit: float | None) -> AccuracyPredictor:
            own = derive_seed(seed, len(history), purpose)
            predictor = AccuracyPredictor(own, common_scale=features, limit=limit)
            return predictor.fit(table[known], y[known])

        learned = [n for n in range(self._objectives) if n not in landscape.costs]
        self._limits: list[tuple[int, float]] = []
        self._violations: dict[str, AccuracyPredictor] = {}
        for key, values in history.constraints.items():
            known = np.isfinite(values)
            if key in landscape.constraints or known.sum() < LEAST_VALUES:
                continue
            limits = _limits_of(values, history.losses, learned)
            self._limits += limits
            if not limits:
                self._violations[key] = fit(-values, known, key, 0.0)
        lowest: dict[int, float] = {}
        for number, limit in self._limits:
            lowest[number] = min(-limit, lowest.get(number, -limit))
        every = np.ones(len(history), dtype=bool)
        self._losses = {
            number: fit(-history.losses[:, number], every, f"{number}", lowest.get(number))
            for number in learned
        }
        self.rank_correlations = {n: p.rank_correlation_ for n, p in self._losses.items()}
        self.weights = {n: p.weights_ for n, p in self._losses.items()}

    def score(self, view: View, exploration: float) -> tuple[FloatArray, FloatArray]:
        """Predict losses, lowered by some standard deviations, and violations.

        Args:
            view: What is known of `n` rows.
            exploration: Standard deviations that a predicted loss is lowered by.

        Returns:
            Losses, `n x m`; violations, `n` values, 0 where feasible.
        """
        table, _ = self._landscape.inputs(view)
        losses = np.empty((len(view.rows), self._objectives))
        losses[:, list(self._landscape.costs)] = view.costs
        violations, means = view.violations.copy(), {}
        for number, predictor in self._losses.items():
            found = -predictor.predict_bounds(table, [exploration, 0.0])
            losses[:, number], means[number] = found
        for number, limit in self._limits:
            violations += np.maximum(means[number] - limit, 0.0)
        for predictor in self._violations.values():
            violations += np.maximum(-predictor.predict(table), 0.0)
        return losses, violations


def _limits_of(
    values: FloatArray, losses: FloatArray, learned: Sequence[int]
) -> list[tuple[int, float]]:
    """Find the learned objective that a constraint limits, and the limit, if there is one."""
    found = []
    for number in learned:
        gaps = losses[:, number] - values
        if np.ptp(gaps) <= SAME * max(1.0, np.abs(gaps).max()):
            found.append((number, float(gaps.mean())))
    return found[:1]
