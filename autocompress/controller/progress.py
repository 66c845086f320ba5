"""How far the trials have come: rank correlations, hypervolume, and what more would add."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.forecast import Forecast
from autocompress.controller.outlook import Outlook, hypervolume_curve, look_ahead
from autocompress.controller.run import Run

FIRST_LOOK = 10
"""Trials after the designs before a search may end early."""


LOOKED_AFTER = 0.05
"""Share by which trials have grown when it is asked again whether there are enough."""


class Progress:
    """Tells of the trials, and whether more are worth it."""

    def __init__(self, run: Run, forecast: Forecast) -> None:
        """Watch a search.

        Args:
            run: The search.
            forecast: Judges its trials.
        """
        self._run, self._forecast = run, forecast
        self._told = len(run.ledger.rounds())
        self._enough, self._looked = False, 0

    def tell(self) -> None:
        """Say what the sampler's predictors were found to be worth, if they were fitted anew."""
        rounds = self._run.ledger.rounds()
        for found in rounds[self._told :]:
            self._run.say("trials", f"{round_words(found)}; {self._outlook().words()}")
        self._told = len(rounds)

    def is_enough(self) -> bool:
        """Tell whether the trials to come promise less than the budget asks of them.

        That is found out anew after each trial at first, and ever more seldom later.
        """
        least, finished = self._run.setup.budget.least_gain, self._run.ledger.finished
        if least is None or finished - len(self._run.ledger.designs()) < FIRST_LOOK:
            return False
        if not self._enough and finished >= self._looked * (1.0 + LOOKED_AFTER):
            self._looked, outlook = finished, self._outlook()
            self._enough = not outlook.is_worth(least)
            if self._enough:
                self._run.say("trials", f"no more trials: {outlook.words()}")
        return self._enough

    def conclude(self) -> None:
        """Keep the curve, and say what as many trials again would add."""
        curve = self._curve()
        if not len(curve):
            return
        outlook = look_ahead(curve, len(curve))
        record = {"curve": curve.tolist(), "more": outlook.more, "words": outlook.words()}
        ends: dict[str, Any] = {"expected": outlook.expected, "low": outlook.low}
        if np.isfinite(outlook.high):
            record |= ends | {"high": outlook.high}
        self._run.ledger.set("outlook", record)
        self._run.say("trials", outlook.words())

    def _outlook(self) -> Outlook:
        """Look ahead to the end of the budget, or as far again."""
        curve, total = self._curve(), self._run.setup.budget.trials
        return look_ahead(curve, len(curve) if total is None else max(0, total - len(curve)))

    def _curve(self) -> NDArray[np.float64]:
        """Return the hypervolume of the feasible after each trial, as predicted now."""
        forecast, rows = self._forecast, []
        for evaluation in self._run.ledger.evaluations():
            known = evaluation.fidelities and not evaluation.failed
            values = forecast.values(evaluation) if known else None
            over = forecast.violations(values).values() if values else ()
            feasible = values is not None and max(over, default=0.0) <= 0.0
            rows.append(forecast.losses(values) if values and feasible else None)
        nothing = [np.inf] * len(forecast.objectives)
        return hypervolume_curve(np.array([row or nothing for row in rows]), forecast.reference())


def round_words(found: dict[str, Any]) -> str:
    """Say how far a fit of the predictors can be trusted.

    Args:
        found: From `Round.to_json`.
    """
    taus = ", ".join(f"{tau:.2f}" for tau in found["rank_correlations"].values())
    trusted = "" if found["trusted"] else ", too low: TPE and mutations take turns"
    ranks = f"ranks left-out ones with tau {taus}" if taus else "ranks none yet that it left out"
    return f"fitted to {found['trials']} trials, the predictor {ranks}{trusted}"
