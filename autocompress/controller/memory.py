"""A study's trials as arrays, each read once."""

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
        self._records: dict[int, tuple[FrozenTrial, Record | None]] = {}

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
        places: list[int] = []
        for trial in _completed(study):
            known = self._records.get(trial.number)
            if known is None or not _same(known[0], trial):
                known = self._records[trial.number] = (trial, _read(trial, genes, signs))
            if known[1] is not None:
                found.append(known[1])
                places.append(trial.number)
        rows = np.array([row for row, _, _ in found]).reshape(-1, len(genes.sizes))
        keys = sorted({key for _, _, constraints in found for key in constraints})
        return History(
            places=_places(study, places),
            rows=np.nan_to_num(rows, nan=0.0),
            active=~np.isnan(rows),
            losses=np.array([losses for _, losses, _ in found]).reshape(-1, len(signs)),
            constraints={
                key: np.array([constraints.get(key, np.nan) for _, _, constraints in found])
                for key in keys
            },
        )

    @staticmethod
    def place(study: Study, trial: FrozenTrial) -> int:
        """Count the trials before one that did not fail, so that a retry keeps its place."""
        return int(_places(study, [trial.number])[0])

    @staticmethod
    def pending(study: Study, genes: Genes, trial: FrozenTrial) -> FloatArray:
        """Return the rows of the other trials that run, as far as they are known."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = [other for other in running if other.number != trial.number]
        return _rows(
            genes, [other.system_attrs.get(PROPOSAL) or _genes(genes, other) for other in others]
        )

    @staticmethod
    def spent(study: Study, genes: Genes) -> FloatArray:
        """Return the rows of the trials that ended without values."""
        ended = study.get_trials(deepcopy=False, states=(TrialState.PRUNED, TrialState.FAIL))
        return _rows(genes, [_genes(genes, trial) for trial in ended])

    @staticmethod
    def signs(study: Study) -> FloatArray:
        """Return 1 for each objective that is minimised, -1 for the others."""
        return np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])


def _completed(study: Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(trials, key=lambda trial: (trial.datetime_complete, trial.number))


def _places(study: Study, numbers: list[int]) -> NDArray[np.int64]:
    """Count, for each number, the lower ones of trials that did not fail."""
    trials = study.get_trials(deepcopy=False)
    kept = sorted(t.number for t in trials if t.state != TrialState.FAIL and t.number >= 0)
    before = np.searchsorted(np.array(kept, dtype=np.int64), numbers)
    return np.where(np.array(numbers) < 0, numbers, before)  # those below 0 are of earlier studies


def _same(known: FrozenTrial, trial: FrozenTrial) -> bool:
    """Tell whether a trial has not changed since it was read."""
    return known is trial or (
        known.values == trial.values and known.constraints == trial.constraints
    )


def _genes(genes: Genes, trial: FrozenTrial) -> dict[str, float]:
    """Return the genes of a trial's parameters, by name."""
    return dict(zip(genes.distributions, genes.encode(trial.params).tolist(), strict=True))


def _rows(genes: Genes, records: list[dict[str, float]]) -> FloatArray:
    """Return `n x d` genes, of those records that have all."""
    complete = [
        [record[name] for name in genes.distributions]
        for record in records
        if record.keys() == genes.distributions.keys()
    ]
    table = np.array(complete, dtype=np.float64).reshape(-1, len(genes.sizes))
    return table[~np.isnan(table).any(axis=1)]


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
