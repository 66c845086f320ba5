"""A study's trials as arrays, each read once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History

FloatArray = NDArray[np.float64]

PROPOSAL = "joint:proposal"
"""The trial's system attribute that tells other workers the genes it was proposed, by name."""

Record = tuple[FloatArray, FloatArray, dict[str, float]]
"""Genes (NaN where inactive), losses and constraints of a trial."""


class Memory:
    """What has been read of one study."""

    def __init__(self) -> None:
        self._space: dict[str, BaseDistribution] = {}
        self._changing: set[str] = set()
        self._seen: set[int] = set()
        self._genes: Genes | None = None
        self._records: dict[int, Record | None] = {}

    def space(self, study: Study) -> dict[str, BaseDistribution]:
        """Return every parameter of completed trials that always had the same distribution."""
        for trial in _completed(study):
            if trial.number in self._seen:
                continue
            self._seen.add(trial.number)
            for name, distribution in trial.distributions.items():
                if self._space.setdefault(name, distribution) != distribution:
                    self._changing.add(name)
        return {n: d for n, d in self._space.items() if n not in self._changing}

    def history(self, study: Study, genes: Genes) -> History:
        """Return the completed trials that lie in a space, in the order of completion."""
        if self._genes is None or self._genes.distributions != genes.distributions:
            self._genes, self._records = genes, {}
        signs = self.signs(study)
        found: list[Record] = []
        numbers: list[int] = []
        for trial in _completed(study):
            if trial.number not in self._records:
                self._records[trial.number] = _read(trial, genes, signs)
            record = self._records[trial.number]
            if record is not None:
                found.append(record)
                numbers.append(trial.number)
        rows = np.array([row for row, _, _ in found]).reshape(-1, len(genes.sizes))
        keys = sorted({key for _, _, constraints in found for key in constraints})
        return History(
            numbers=np.array(numbers, dtype=np.int64),
            rows=np.nan_to_num(rows, nan=0.0),
            active=~np.isnan(rows),
            losses=np.array([losses for _, losses, _ in found]).reshape(-1, len(signs)),
            constraints={
                key: np.array([constraints.get(key, np.nan) for _, _, constraints in found])
                for key in keys
            },
        )

    def pending(self, study: Study, genes: Genes, trial: FrozenTrial) -> FloatArray:
        """Return the rows of the other trials that run, as far as they are known."""
        rows = []
        for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            proposal: dict[str, Any] = other.system_attrs.get(PROPOSAL, {})
            if other.number == trial.number:
                continue
            if proposal.keys() == genes.distributions.keys():
                rows.append([proposal[name] for name in genes.distributions])
            elif other.params.keys() >= genes.distributions.keys():
                rows.append(genes.encode(other.params).tolist())
        table = np.array(rows, dtype=np.float64).reshape(-1, len(genes.sizes))
        return table[~np.isnan(table).any(axis=1)]

    @staticmethod
    def signs(study: Study) -> FloatArray:
        """Return 1 for each objective that is minimised, -1 for the others."""
        return np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])


def _completed(study: Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (trial.datetime_complete, trial.number))


def _read(trial: FrozenTrial, genes: Genes, signs: FloatArray) -> Record | None:
    """Read a trial; None if a value is infinite or a parameter outside the space."""
    row, losses = genes.encode(trial.params), signs * np.array(trial.values)
    outside = any(
        name in trial.params and np.isnan(gene)
        for name, gene in zip(genes.distributions, row, strict=True)
    )
    if outside or not np.isfinite(losses).all():
        return None
    return row, losses, dict(trial.constraints)
