"""Predictors of all objectives and constraints that only trials reveal."""

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.landscape import History, Landscape, Mask, View
from autocompress.core.seeds import derive_seed
from autocompress.predictor.ensemble import AccuracyPredictor

FloatArray = NDArray[np.float64]

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

        def fit(y: FloatArray, known: Mask, purpose: str) -> AccuracyPredictor:
            own = derive_seed(seed, len(history), purpose)
            return AccuracyPredictor(own, common_scale=features).fit(table[known], y[known])

        self._losses = {
            number: fit(-history.losses[:, number], np.ones(len(history), dtype=bool), f"{number}")
            for number in range(self._objectives)
            if number not in landscape.costs
        }
        known = {key: np.isfinite(values) for key, values in history.constraints.items()}
        self._violations = {
            key: fit(-values, known[key], key)
            for key, values in history.constraints.items()
            if key not in landscape.constraints and known[key].sum() >= LEAST_VALUES
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
        for number, predictor in self._losses.items():
            losses[:, number] = -predictor.predict_bound(table, exploration)
        violations = view.violations.copy()
        for predictor in self._violations.values():
            violations += np.maximum(-predictor.predict(table), 0.0)
        return losses, violations
