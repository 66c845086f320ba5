"""What a study has learned of accuracy: kept as data, fitted again where it is wanted."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.computed import TRAINING_PARAMETERS, Sensitivities, effective
from autocompress.controller.forecast import Forecast
from autocompress.controller.ledger import Ledger
from autocompress.controller.run import Run
from autocompress.controller.sensitivity import known_sensitivities
from autocompress.core.candidate import Candidate
from autocompress.core.files import write_atomic
from autocompress.errors import InvalidInputError, MissingFileError, StudyError, explain
from autocompress.predictor.ensemble import AccuracyPredictor
from autocompress.space.bound import BoundSpace

FloatArray = NDArray[np.float64]

KEPT = Path("predictor") / "accuracy.npz"
"""Where it lies in the folder of a study."""

LEAST_TRIALS = 2
"""Trials from which anything is predicted."""

_log = logging.getLogger(__name__)


class CandidatePredictor:
    """Predicts the accuracy that candidates of a study reach once they are trained.

    It is fitted to all trials as they were judged last, whatever proposed them.

    Args:
        space: The study's space.
        sensitivities: What each choice does by itself.
        predictor: Fitted to what `describe` returns, or to be fitted.
    """

    def __init__(
        self, space: BoundSpace, sensitivities: Sensitivities, predictor: AccuracyPredictor
    ) -> None:
        self._space, self._predictor = space, predictor
        self._parameters = [p for p in space.parameters if p.name not in TRAINING_PARAMETERS]
        self._names = tuple(parameter.name for parameter in self._parameters)
        self._active = effective(space, self._names)
        self._features = sensitivities.features(self._names) if sensitivities else None

    @property
    def rank_correlation(self) -> float:
        """Kendall's tau of predictions of trials that were left out of the fit."""
        return self._predictor.rank_correlation_

    def predict(self, candidates: Sequence[Candidate]) -> tuple[FloatArray, FloatArray]:
        """Predict accuracy on `val`.

        Args:
            candidates: `n` candidates; what the space does not hold is taken
                to its nearest choice.

        Returns:
            `n` means and `n` standard deviations, > 0: nine of ten values are
            expected within 1.645 of them.
        """
        return self._predictor.predict(self.describe(candidates), return_std=True)

    def describe(self, candidates: Sequence[Candidate]) -> FloatArray:
        """Return `n x d` inputs of the predictor: places of the choices, and sensitivities."""
        params = [self._space.to_params(candidate) for candidate in candidates]
        rows = np.array([[one[n] for n in self._names] for one in params], dtype=np.float64)
        rows = rows.reshape(-1, len(self._names))
        levels = np.where(self._active(rows), rows, np.nan)
        low, high = np.array([(p.low, p.high) for p in self._parameters]).T
        places = (np.where(np.isnan(levels), low, levels) - low) / np.maximum(high - low, 1.0)
        found = [self._features(levels)] if self._features else []
        return np.concatenate([places, *found], axis=1)

    def fit(self, candidates: Sequence[Candidate], accuracies: Sequence[float], seed: int) -> None:
        """Fit to `n` candidates, n >= 2, and what they are expected to reach."""
        table = self.describe(candidates)
        shared = range(len(self._names), table.shape[1])
        self._predictor = AccuracyPredictor(seed, common_scale=shared)
        self._predictor.fit(table, accuracies)

    def save(self, path: Path) -> None:
        """Write data, seed and versions; see `AccuracyPredictor.save`."""
        write_atomic(path, self._predictor.save)


def keep_predictor(run: Run, forecast: Forecast) -> None:
    """Fit to all trials as they are judged now, and write the study's file anew."""
    known = [e for e in run.evaluations() if e.fidelities and not e.failed]
    if len(known) < LEAST_TRIALS:
        return
    sensitivities = known_sensitivities(run.ledger, run.setup.space)
    fitted = CandidatePredictor(run.setup.space, sensitivities, AccuracyPredictor())
    accuracies = [forecast.accuracy(evaluation) for evaluation in known]
    fitted.fit([evaluation.candidate for evaluation in known], accuracies, run.setup.seed)
    fitted.save(run.setup.study_dir / KEPT)


def check_kept_predictor(run: Run, forecast: Forecast) -> None:
    """Read the file of a study that goes on, and write a damaged one anew."""
    path = run.setup.study_dir / KEPT
    if not path.exists():
        return
    try:
        AccuracyPredictor.load(path)
    except StudyError as error:
        run.say("trials", f"the predictor is fitted anew: {error}")
        keep_predictor(run, forecast)


def read_predictor(study_dir: Path, space: BoundSpace) -> CandidatePredictor:
    """Fit a study's predictor again, from its file, or else from the study.

    Args:
        study_dir: The study's folder.
        space: Its space, bound to its model.

    Raises:
        InvalidInputError: If the space is another one, or there are no trials to fit to.
        MissingFileError: If there is no study.
        StudyError: If the study itself is damaged.
    """
    ledger = Ledger.read(study_dir / "study.db")
    try:
        kept_space = ledger.get("identity", {}).get("space")
        known = [e for e in ledger.evaluations() if e.predicted_accuracy is not None]
        sensitivities, seed = known_sensitivities(ledger, space), ledger.seed
    finally:
        ledger.close()
    if kept_space != space.fingerprint or len(known) < LEAST_TRIALS:
        raise InvalidInputError(
            explain(
                f"the predictor of '{study_dir}'",
                expected=f"the space of the study, and {LEAST_TRIALS} trials",
                got=f"{len(known)} trials of space {kept_space}, and space {space.fingerprint}",
                remedy="bind the study's space to its model for the study's target and costs",
            )
        )
    try:
        return CandidatePredictor(space, sensitivities, AccuracyPredictor.load(study_dir / KEPT))
    except (MissingFileError, StudyError) as error:
        _log.warning("the predictor is fitted to the trials as they ended: %s", error)
    found = CandidatePredictor(space, sensitivities, AccuracyPredictor())
    accuracies = [e.predicted_accuracy for e in known if e.predicted_accuracy is not None]
    found.fit([evaluation.candidate for evaluation in known], accuracies, seed)
    return found
