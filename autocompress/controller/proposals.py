"""How one row is chosen for a trial: drawn, mutated, or best by a model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.acquisition import improvements
from autocompress.controller.evolution import Score, evolve
from autocompress.controller.genes import Genes
from autocompress.controller.landscape import History, Landscape
from autocompress.controller.surrogate import Surrogate
from autocompress.core.pareto import non_dominated_mask
from autocompress.core.seeds import derive_seed

FloatArray = NDArray[np.float64]

EXPLORATION = (0.5, 2.0)
"""Standard deviations of credit for what is uncertain; trials take turns."""

POPULATION, GENERATIONS = 64, 12
"""Size of the search inside a proposal."""

BASES = 4
"""Rows of the front that separable steps start from."""

WEIGHT_SPREAD = 2.0
"""Standard deviation of the logarithm of the weights that losses are traded off with."""

LEAST_CORRELATION = 0.3
LEAST_TRIALS = 20
"""Rank correlation below which a predictor is not trusted, after so many trials."""

DRAWS = 64
"""Rows drawn or mutated at a time where one is needed."""

REPAIRS = 4
"""Times that an infeasible row is mixed with a feasible one, ever more of it."""

PLACES = 9
"""Decimals of genes that tell rows apart."""

FENCE = 5.0
"""Interquartile ranges beyond the quartiles up to which the first trials count as the worst."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What a fit of the predictors showed.

    Attributes:
        trials: Completed trials that they were fitted to.
        rank_correlations: By the number of each predicted objective, Kendall's
            tau of predictions that were left out of the fit, where it can be told.
        weights: By number, the weights of the predictor's members.
        trusted: Whether proposals go by the predictions.
        reference: The reference point, in the study's units.
    """

    trials: int
    rank_correlations: Mapping[int, float]
    weights: Mapping[int, tuple[float, ...]]
    trusted: bool
    reference: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


class Model:
    """Predictors fitted to a history, and the pools of candidates found with them.

    Attributes:
        landscape: What needs no prediction.
        trusted: Whether the predictors rank left-out trials well enough.
    """

    def __init__(
        self,
        landscape: Landscape,
        history: History,
        first: History,
        reference: FloatArray | None,
        seed: int,
        nearer: Sequence[FloatArray] = (),
    ) -> None:
        """Fit to a history.

        Args:
            landscape: What needs no prediction.
            history: Completed trials.
            first: The first of them, which decide the reference point.
            reference: The reference point as losses, if it is given.
            seed: Decides folds, trees and the search for candidates.
            nearer: Reference points that trials take turns with.
        """
        self.landscape = landscape
        self._history, self._seed = history, seed
        self._surrogate = Surrogate(landscape, history, seed)
        self._reference = _reference(first.losses) if reference is None else reference
        self._references = [self._reference, *nearer]
        self._pools: dict[int, tuple[FloatArray, FloatArray]] = {}
        correlations = self._surrogate.rank_correlations.values()
        poor = any(not tau >= LEAST_CORRELATION for tau in correlations)
        self.trusted = len(history) < LEAST_TRIALS or not poor

    def fits(self, genes: Genes, history: History) -> bool:
        """Tell whether this model is that of a history."""
        return self.landscape.genes.distributions == genes.distributions and self._history.equals(
            history
        )

    def round(self, signs: FloatArray) -> Round:
        """Return what the fit showed, in the study's units."""
        return Round(
            trials=len(self._history),
            rank_correlations={
                number: tau
                for number, tau in self._surrogate.rank_correlations.items()
                if not np.isnan(tau)
            },
            weights=self._surrogate.weights,
            trusted=self.trusted,
            reference=tuple((signs * self._reference).tolist()),
        )

    def best(
        self,
        history: History,
        pending: FloatArray,
        tried: FloatArray,
        place: int,
        rng: np.random.Generator,
    ) -> FloatArray:
        """Choose the candidate that would add most hypervolume.

        Args:
            history: All completed trials.
            pending: Rows of running trials; they count as their predictions.
            tried: Rows that need no other trial, those above among them.
            place: The trial's place in the study, which decides the exploration.
            rng: For a mutation of the front where no candidate adds any.
        """
        turn = place % len(EXPLORATION)
        if turn not in self._pools:
            self._pools[turn] = self._search(turn)
        rows, losses = self._pools[turn]
        known = history.losses[history.feasible & history.own]
        if len(pending):
            expected, violations = self._surrogate.score(self.landscape.view(pending), 0.0)
            known = np.concatenate([known, expected[violations <= 0.0]])
        fresh = unseen(rows, tried)
        turns = place // len(EXPLORATION)
        reference = self._references[turns % len(self._references)]
        added = improvements(losses, known, reference) * fresh
        if not added.any():
            added = improvements(losses, known, self._reference) * fresh
        if not added.any():
            return mutated(self.landscape, history, tried, rng)
        return np.asarray(rows[int(np.argmax(added))])

    def _search(self, turn: int) -> tuple[FloatArray, FloatArray]:
        """Search for candidates; return rows and optimistic losses of those least infeasible."""
        landscape, history = self.landscape, self._history
        seed = derive_seed(self._seed, len(history), f"search {turn}")
        rng = np.random.default_rng(seed)
        good = history.rows[_front(history)]

        def vary(one: FloatArray, other: FloatArray, rng: np.random.Generator) -> FloatArray:
            children = landscape.canonical(landscape.genes.vary(one, other, rng))
            return repaired(landscape, children, one, rng)

        def score(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
            return self._surrogate.score(landscape.view(rows), EXPLORATION[turn])

        bases = good[rng.permutation(len(good))[:BASES]]
        parts = [good[:POPULATION], landscape.genes.draw(POPULATION, rng)]
        parts.append(separable_steps(landscape, score, bases, rng))
        start = landscape.canonical(np.concatenate(parts))
        start = repaired(landscape, start, good, rng)
        rows = evolve(score, vary, start, rng, population=POPULATION, generations=GENERATIONS)
        losses, violations = score(rows)
        least = violations <= max(0.0, violations.min())
        return rows[least], losses[least]


def separable_steps(
    landscape: Landscape, score: Score, bases: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Improve all parameters of some rows at once, as if their effects added up.

    Each parameter is changed alone. For weights of the losses, drawn at
    random, every parameter then takes its best value, as the Lagrangian of a
    multiple-choice knapsack does (Everett 1963). Half of the rows take a
    random half of those steps.

    Returns:
        `POPULATION x d` rows for each of the bases.
    """
    plans, tried = [], []
    for base in bases:
        columns, changed = landscape.genes.neighbours(base, rng)
        weights = np.exp(rng.normal(0.0, WEIGHT_SPREAD, (POPULATION, landscape.objectives)))
        kept = rng.random((POPULATION, len(base))) < 0.5
        kept[::2] = False
        plans.append((base, columns, changed, weights, kept))
        tried.append(np.concatenate([base[None], changed]))
    losses, violations = score(landscape.canonical(np.concatenate(tried)))  # at once is quicker
    ends = np.cumsum([len(rows) for rows in tried])[:-1]
    scores = zip(np.split(losses, ends), np.split(violations, ends), strict=True)
    stepped = [_stepped(*plan, *found) for plan, found in zip(plans, scores, strict=True)]
    return np.concatenate(stepped)


def _stepped(
    base: FloatArray,
    columns: NDArray[np.int64],
    changed: FloatArray,
    weights: FloatArray,
    kept: NDArray[np.bool_],
    losses: FloatArray,
    violations: FloatArray,
) -> FloatArray:
    """Take the best of all single changes of a base, for each row of weights."""
    span = np.ptp(losses, axis=0)
    effects = (losses[1:] - losses[0]) / np.where(span > 0.0, span, 1.0)
    effects[violations[1:] > max(0.0, violations[0])] = 1.0
    values = weights @ effects.T
    rows = np.repeat(base[None], POPULATION, axis=0)
    for column in np.unique(columns):
        options = np.flatnonzero(columns == column)
        best = options[np.argmin(values[:, options], axis=1)]
        better = values[np.arange(POPULATION), best] < 0.0
        rows[better, column] = changed[best[better], column]
    return np.where(kept, base, rows)


def drawn(landscape: Landscape, known: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw a row at random: feasible if possible, and not known.

    Every other row has all its parameters at a similar level, low or high:
    with many of them, independent draws are all alike.
    """
    odd = len(np.unique(known, axis=0)) % 2  # a trial that was tried again counts once
    draw = landscape.genes.draw_level if odd else landscape.genes.draw
    rows = landscape.canonical(draw(DRAWS, rng))
    violations = landscape.violations(rows)
    if violations.all():  # none is feasible: go towards it
        rows = evolve(
            lambda found: (landscape.violations(found)[:, None], np.zeros(len(found))),
            lambda one, other, rng: landscape.canonical(landscape.genes.vary(one, other, rng)),
            rows,
            rng,
            population=POPULATION,
            generations=GENERATIONS,
        )
        violations = landscape.violations(rows)
    order = np.lexsort((~unseen(rows, known), violations > 0.0))
    return np.asarray(rows[order[0]])


def mutated(
    landscape: Landscape, history: History, known: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Mutate a random row of the front: feasible if possible, and not known."""
    front = history.rows[_front(history)]
    parents = front[rng.integers(0, len(front), DRAWS)]
    children = landscape.canonical(landscape.genes.mutate(parents, rng))
    children = repaired(landscape, children, front, rng)
    usable = unseen(children, known) & (landscape.violations(children) <= 0.0)
    return np.asarray(children[np.argmax(usable)]) if usable.any() else drawn(landscape, known, rng)


def repaired(
    landscape: Landscape, rows: FloatArray, anchors: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Mix infeasible rows with feasible ones among some anchors, until they are feasible too."""
    if not landscape.constraints or not len(anchors):
        return rows
    both = landscape.violations(np.concatenate([anchors, rows])) > 0.0
    anchors, wrong = anchors[~both[: len(anchors)]], np.flatnonzero(both[len(anchors) :])
    if not len(anchors) or not len(wrong):
        return rows
    mixed = [rows[wrong]]
    for attempt in range(1, REPAIRS + 1):  # the last is an anchor itself
        taken = anchors[rng.integers(0, len(anchors), len(wrong))]
        mixed.append(np.where(rng.random(taken.shape) < attempt / REPAIRS, taken, mixed[-1]))
    tried = landscape.canonical(np.concatenate(mixed[1:]))  # all at once, which is quicker
    held = landscape.violations(tried).reshape(REPAIRS, -1) <= 0.0
    rows = rows.copy()
    rows[wrong] = tried.reshape(REPAIRS, len(wrong), -1)[held.argmax(axis=0), np.arange(len(wrong))]
    return rows


def _front(history: History) -> NDArray[np.int64]:
    """Return the numbers of the best trials: feasible and not dominated, if any is feasible."""
    usable = np.flatnonzero(history.feasible)
    if not len(usable):
        excess = [np.maximum(np.nan_to_num(v), 0.0) for v in history.constraints.values()]
        return np.argsort(np.sum(excess, axis=0), kind="stable")[:1]
    return usable[non_dominated_mask(history.losses[usable])]


def _reference(losses: FloatArray) -> FloatArray:
    """Return the worst of each loss, collapses left out (Tukey 1977)."""
    low, high = np.quantile(losses, (0.25, 0.75), axis=0)
    worst = np.minimum(losses.max(axis=0), high + FENCE * (high - low))
    return np.asarray(np.where(worst > losses.min(axis=0), worst, worst + 1.0))


def unseen(rows: FloatArray, known: FloatArray) -> NDArray[np.bool_]:
    """Tell which rows are not among the known ones, a round trip to parameters apart."""
    seen = {row.tobytes() for row in np.round(known, PLACES) + 0.0}
    return np.array([row.tobytes() not in seen for row in np.round(rows, PLACES) + 0.0], dtype=bool)
