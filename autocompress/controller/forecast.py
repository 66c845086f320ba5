"""What a trial is expected to reach: costs, final accuracy, violations, losses."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.objective import ACCURACIES, DEVICE_COSTS, Constraint, Objective, T
from autocompress.core.population import Candidates, Population
from autocompress.core.target import FLOAT
from autocompress.cost.analytic import StoredWeights, count_all_costs
from autocompress.cost.pace import pace
from autocompress.cost.resolve import Profile
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import pruned_widths
from autocompress.predictor.recovery import LearningCurve, RecoveryModel

ACCURACY_SPAN = 0.2
"""Accuracy below the original at which the reference point lies, where none is asked for."""

LEAST_SPAN = 0.005
"""Accuracy below the original at which it lies at least."""

MOST_KNOWN = 20_000
"""Candidates whose costs are remembered."""

MARGIN = 1.1
"""How far the reference point lies beyond the original's costs and beyond the accuracy that may
be lost, as a multiple: what is at a limit counts, and nothing far beyond."""


class Forecast:
    """Predicts the values of candidates, and learns from those that were trained.

    Args:
        graph: Structure of the original.
        profile: The target's profile.
        objectives: What is optimised.
        constraints: What must hold.
        baseline: "accuracy" on `val`, "proxy_accuracy" on the proxy's images,
            and costs of the original's artifact. Its latency is predicted
            too: trials are judged by predictions against predictions, so that
            the same profile leads to the same decisions.
        full_images: Tells how many training images are expected behind a full fine-tune of
            a candidate of some `pace`, inherited ones included; at least 1.
        stored: Bits per stored weight; see `count_costs`.
    """

    def __init__(
        self,
        graph: ModelGraph,
        profile: Profile,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        baseline: Mapping[str, float],
        full_images: Callable[[float], int],
        stored: StoredWeights | None = None,
    ) -> None:
        self.graph, self.profile, self.stored = graph, profile, stored
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self.baseline, self.full_images = dict(baseline), full_images
        if "latency_ms" in baseline:
            self.baseline |= profile.predict_costs(graph, Candidate())
        self.recovery = RecoveryModel()
        self.curve = LearningCurve()
        self.most_images = 0
        self._usual = (0.0, 0.0)
        self._paces: dict[Candidate, float] = {}
        self._expected: dict[Candidate, int] = {}
        self._known: dict[Candidate, dict[str, float]] = {}
        self._known_by = profile

    def costs(self, candidate: Candidate) -> dict[str, float]:
        """Predict all costs of a candidate without building it."""
        if self._known_by is not self.profile or len(self._known) > MOST_KNOWN:
            self._known, self._known_by = {}, self.profile
        if candidate not in self._known:
            found = self.all_costs([candidate])
            self._known[candidate] = {name: values[0].item() for name, values in found.items()}
        return dict(self._known[candidate])

    def all_costs(
        self, candidates: Candidates, names: Collection[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Predict the costs of `n` candidates at once.

        Args:
            candidates: n of them.
            names: Those costs that are wanted; None for all.

        Returns:
            By name, `n` values; more than were wanted, maybe.
        """
        population = Population.of(candidates)
        found: dict[str, NDArray[Any]] = {}
        if names is None or not set(names) <= set(DEVICE_COSTS):
            found |= count_all_costs(self.graph, population, self.stored)
        if names is None or not set(names).isdisjoint(DEVICE_COSTS):
            found |= self.profile.predict_many(self.graph, population)
        return found

    def learn(self, evaluations: Sequence[Evaluation]) -> None:
        """Refit the accuracy models to the candidates that were trained."""
        self._expected = {}
        own = [e for e in evaluations if e.slot >= 0]  # weights of earlier studies are not here
        full = [e.fidelities[2].trained_images for e in own if 2 in e.fidelities]
        self.most_images = max(full, default=0)  # which the next one inherits
        self.curve = self._learning_curve(evaluations)
        self._usual = self._usual_images(evaluations)
        rows, lost = [], []
        for evaluation in evaluations:
            if 0 in evaluation.fidelities and max(evaluation.fidelities) > 0:
                rows.append(self._features(evaluation))
                left = max(0.0, self.baseline["accuracy"] - self.accuracy(evaluation))
                lost.append(left / self._handicap(evaluation.candidate))
        if rows:
            self.recovery = RecoveryModel.fit(np.array(rows), np.array(lost))

    def _learning_curve(self, evaluations: Sequence[Evaluation]) -> LearningCurve:
        """Fit the curve to trained finalists; what one was never trained shortly is predicted."""
        full = [e for e in evaluations if 2 in e.fidelities and e.fidelities[2].trained_images > 0]
        short = [e for e in evaluations if {0, 1} <= e.fidelities.keys()]
        known = [e for e in full if 1 in e.fidelities]
        begun = [(self._lost(e, 1), e.fidelities[1].trained_images) for e in known]
        if short:
            others = [e for e in full if 0 in e.fidelities and 1 not in e.fidelities]
            table = [np.array([self._features(e) for e in group]) for group in (short, others)]
            model = RecoveryModel.fit(table[0], np.array([self._lost(e, 1) for e in short]))
            images = int(np.median([e.fidelities[1].trained_images for e in short]))
            losses = model.predict(table[1])[0].tolist() if others else []
            known, begun = [*known, *others], [*begun, *((lost, images) for lost in losses)]
        return LearningCurve.fit(
            np.array([lost for lost, _ in begun]),
            np.array([self._lost(e, 2) for e in known]),
            np.array(
                [
                    min(1.0, images / e.fidelities[2].trained_images)
                    for e, (_, images) in zip(known, begun, strict=True)
                ]
            ),
        )

    def accuracy(self, evaluation: Evaluation, caution: float = 0.0) -> float:
        """Predict accuracy on `val` after full fine-tuning, [0, 1].

        A candidate that had one is predicted at what it reached. One that was
        trained shortly or only proxied is predicted at the original's
        accuracy, less the part of its loss that training is expected to leave:
        where minutes are budgeted, candidates that train quickly see more images.

        Args:
            evaluation: What is known of it.
            caution: Standard deviations that are taken off where nothing was trained.
        """
        highest = max(evaluation.fidelities)
        if highest == 2:
            return evaluation.fidelities[2].accuracy
        if highest == 1:
            short = evaluation.fidelities[1]
            ratio = min(1.0, short.trained_images / self._images(evaluation.candidate))
            left = self._lost(evaluation, 1) * self.curve.left(ratio)
            return max(self.baseline["accuracy"] - left, short.accuracy)
        mean, deviation = self.recovery.predict(np.array([self._features(evaluation)]))
        lost = float(mean[0] + caution * deviation[0]) * self._handicap(evaluation.candidate)
        return max(0.0, self.baseline["accuracy"] - lost)

    def _images(self, candidate: Candidate) -> int:
        """Return the training images that are expected behind a full fine-tune."""
        if candidate not in self._expected:
            if candidate not in self._paces:
                self._paces[candidate] = pace(self.graph, candidate)
            self._expected[candidate] = self.full_images(self._paces[candidate])
        return max(self._expected[candidate], self.most_images)

    def _usual_images(self, evaluations: Sequence[Evaluation]) -> tuple[float, float]:
        """Return the medians of images behind short fine-tunes, and behind full ones of the same.

        Both are 0 where there was none.
        """
        short = [e for e in evaluations if 1 in e.fidelities]
        if not short:
            return 0.0, 0.0
        begun = [e.fidelities[1].trained_images for e in short]
        return float(np.median(begun)), float(np.median([self._images(e.candidate) for e in short]))

    def _handicap(self, candidate: Candidate) -> float:
        """Return how much more of a loss stays than of the usual candidate that was trained.

        Where minutes are budgeted, full fine-tunes of slower ones see fewer images.
        """
        begun, usual = self._usual
        if not begun:
            return 1.0
        own, other = (
            self.curve.left(min(1.0, begun / images)) for images in (self._images(candidate), usual)
        )
        return own / other

    def gap(self, evaluation: Evaluation, fidelity: int | None = None) -> float:
        """Return the accuracy lost against the original, at the highest fidelity by default."""
        fidelity = max(evaluation.fidelities) if fidelity is None else fidelity
        known = evaluation.fidelities
        like_proxy = fidelity < 2 and 0 in known and known[fidelity].images == known[0].images
        original = self.baseline["proxy_accuracy" if like_proxy else "accuracy"]
        return original - known[fidelity].accuracy

    def values(self, evaluation: Evaluation, caution: float = 0.0) -> dict[str, float]:
        """Predict "accuracy", with some caution, and all costs."""
        return self.costs(evaluation.candidate) | {"accuracy": self.accuracy(evaluation, caution)}

    def losses(self, values: Mapping[str, T]) -> list[T]:
        """Turn values, or arrays of them, into one loss per objective."""
        return [objective.loss(values) for objective in self.objectives]

    def violations(self, values: Mapping[str, T]) -> dict[str, T]:
        """Measure each constraint's violation; at most 0 when met."""
        return {c.name: c.violation(values, self.baseline) for c in self.constraints}

    def allowance(self, candidate: Candidate) -> dict[str, float]:
        """Return each limited cost's limit, as a fraction of the candidate's cost."""
        costs = self.costs(candidate)
        return {
            constraint.name: constraint.limit(self.baseline) / costs[constraint.name]
            for constraint in self.constraints
            if constraint.name in costs
        }

    def reference(self, share: float = 1.0) -> NDArray[np.float64]:
        """Return the fixed reference point of the hypervolume, as losses.

        Args:
            share: Of the accuracy that may be lost, for a point nearer to the original's.
        """
        original = self.baseline["accuracy"]
        spans = [
            MARGIN * (original - constraint.limit(self.baseline))
            for constraint in self.constraints
            if constraint.name in ACCURACIES
        ]
        span = max(LEAST_SPAN, min([ACCURACY_SPAN, *spans]))
        corner = {name: MARGIN * value for name, value in self.baseline.items()}
        corner["accuracy"] = max(0.0, original - share * span)
        return np.array(self.losses(corner))

    def _lost(self, evaluation: Evaluation, fidelity: int) -> float:
        return max(0.0, self.gap(evaluation, fidelity))

    def _features(self, evaluation: Evaluation) -> list[float]:
        """Describe a proxied candidate as `RecoveryModel` wants it."""
        candidate = evaluation.candidate
        total = sum(layer.macs for layer in self.graph.layers) or 1
        standing = sum(layer.macs for layer in self.graph.layers if not candidate.drops(layer.name))
        left = sum(width.macs for width in pruned_widths(self.graph, candidate).values())
        bits = [config.weight_bits for config in candidate.layers.values()]
        noise = [4.0 ** (8 - b) / 4.0**6 for b in bits if b != FLOAT]
        return [
            self._lost(evaluation, 0),
            1.0 - standing / total,
            (standing - left) / total,
            sum(noise) / max(1, len(self.graph.layers)),
        ]
