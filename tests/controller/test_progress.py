from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autocompress.controller.progress import FIRST_LOOK, Progress, round_words
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult


class _Run:
    """A search of which only the trials are there."""

    def __init__(self, accuracies: list[float], budget: Budget, designs: int = 0) -> None:
        self.said: list[str] = []
        self.kept: dict[str, Any] = {}
        self.fits: list[dict[str, Any]] = []
        self.setup = SimpleNamespace(budget=budget)
        self.ledger = SimpleNamespace(
            rounds=lambda: list(self.fits),
            finished=len(accuracies),
            designs=lambda: [None] * designs,
            evaluations=lambda: [self._evaluation(a) for a in accuracies],
            set=self.kept.__setitem__,
        )

    def _evaluation(self, accuracy: float) -> Evaluation:
        found = FidelityResult(accuracy=accuracy, images=1, trained_images=0, seconds=0.0)
        known = {} if np.isnan(accuracy) else {0: found}
        return Evaluation(slot=0, candidate=Candidate(), origin="x", fidelities=known)

    def say(self, stage: str, message: str) -> None:
        self.said.append(message)


def forecast(least: float = 0.0) -> Any:
    return SimpleNamespace(
        objectives=("accuracy", "latency_ms"),
        values=lambda e: {"accuracy": e.fidelities[0].accuracy},
        violations=lambda values: {"accuracy": least - values["accuracy"]},
        losses=lambda values: [1.0 - values["accuracy"], 0.0],
        reference=lambda: np.array([1.0, 1.0]),
    )


FLAT = [0.5, *[0.6] * 39]
RISING = [0.02 * n for n in range(1, 41)]


def test_a_flat_curve_ends_the_trials_and_a_rising_one_does_not() -> None:
    for accuracies, enough in ((FLAT, True), (RISING, False)):
        run = _Run(accuracies, Budget(trials=60, least_gain=0.01))
        assert Progress(run, forecast()).is_enough() is enough  # type: ignore[arg-type]
        assert len(run.said) == enough


def test_many_trials_are_not_looked_at_again_after_each_one() -> None:
    run = _Run(RISING, Budget(trials=600, least_gain=0.01))
    looks: list[int] = []
    run.ledger.evaluations = lambda: looks.append(0) or [run._evaluation(a) for a in RISING]
    progress = Progress(run, forecast())  # type: ignore[arg-type]
    for finished in range(100, 121):
        run.ledger.finished = finished
        assert not progress.is_enough()
    assert len(looks) == 4  # at 100, 105, 111 and 117


def test_what_is_enough_stays_enough_and_is_said_once() -> None:
    run = _Run(FLAT, Budget(trials=60, least_gain=0.01))
    progress = Progress(run, forecast())  # type: ignore[arg-type]
    for finished in range(40, 50):
        run.ledger.finished = finished
        assert progress.is_enough()
    assert len(run.said) == 1


def test_without_a_limit_and_right_after_the_designs_the_trials_go_on() -> None:
    whole = _Run(FLAT, Budget(trials=60))
    early = _Run(FLAT, Budget(trials=60, least_gain=0.01), designs=len(FLAT) - FIRST_LOOK + 1)
    for run in (whole, early):
        assert not Progress(run, forecast()).is_enough()  # type: ignore[arg-type]


def test_the_curve_counts_what_is_feasible_and_is_kept() -> None:
    run = _Run([0.3, float("nan"), 0.5, 0.2, *RISING[30:]], Budget(trials=100))
    Progress(run, forecast(least=0.4)).conclude()  # type: ignore[arg-type]
    curve = run.kept["outlook"]["curve"]
    assert curve[:4] == pytest.approx([0.0, 0.0, 0.5, 0.5])
    assert curve[-1] == pytest.approx(0.8)
    assert run.kept["outlook"]["more"] == len(curve)
    assert run.said == [run.kept["outlook"]["words"]]
    low, high = (run.kept["outlook"][key] for key in ("low", "high"))
    assert curve[-1] <= low <= run.kept["outlook"]["expected"] <= high


def test_a_search_without_trials_keeps_nothing() -> None:
    run = _Run([], Budget(trials=1))
    Progress(run, forecast()).conclude()  # type: ignore[arg-type]
    assert not run.kept


def test_what_earlier_studies_taught_may_be_told_before_any_trial() -> None:
    run = _Run([], Budget(trials=20, least_gain=0.01))
    progress = Progress(run, forecast())  # type: ignore[arg-type]
    run.fits = [{"trials": 12, "rank_correlations": {"0": 0.5}, "trusted": True}]
    progress.tell()
    assert run.said[0].endswith("too few trials to tell what 20 more would add")
    run.ledger.finished = 12  # all were pruned, since their costs were over the limits
    assert not progress.is_enough()


def test_each_fit_is_told_once() -> None:
    run = _Run(RISING, Budget(trials=60))
    run.fits = [{"trials": 10, "rank_correlations": {"0": 0.5}, "trusted": True}]
    progress = Progress(run, forecast())  # type: ignore[arg-type]
    progress.tell()
    assert run.said == []  # an earlier run said it
    run.fits = [*run.fits, {"trials": 20, "rank_correlations": {"0": 0.25}, "trusted": False}]
    progress.tell()
    progress.tell()
    (said,) = run.said
    assert said.startswith(round_words(run.fits[1]))
    assert "20 more trials" in said


def test_words_name_the_correlation_and_whether_it_is_trusted() -> None:
    found = {"trials": 20, "rank_correlations": {"0": 0.813}, "trusted": True}
    words = round_words(found)
    assert words == "fitted to 20 trials, the predictor ranks left-out ones with tau 0.81"
    assert "TPE and mutations" in round_words(found | {"trusted": False})
    untold = round_words(found | {"rank_correlations": {}})
    assert untold == "fitted to 20 trials, the predictor ranks none yet that it left out"
