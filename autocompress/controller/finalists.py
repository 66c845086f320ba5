"""Which candidates become members, and how the training time is shared among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.core.evaluation import Evaluation
from autocompress.core.pareto import greedy_hypervolume, non_dominated_rank

NO_GAP = 0.0015
"""Accuracy below the original's that is not worth training to win back."""

NEAR = 0.005
"""Predicted violation, in accuracy or as a fraction of a limit, that may be an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A candidate that is trained fully, exported and measured.

    Attributes:
        evaluation: Its trial.
        predicted: Predicted values by name.
        share: Share of the training time, [0, 1].
    """

    evaluation: Evaluation
    predicted: dict[str, float]
    share: float


def choose_finalists(
    evaluations: Sequence[Evaluation],
    values: Sequence[dict[str, float]],
    losses: NDArray[np.float64],
    violations: NDArray[np.float64],
    reference: NDArray[np.float64],
    gaps: Sequence[float],
    baseline_accuracy: float,
    count: int,
    members: Sequence[int] = (),
) -> list[Finalist]:
    """Choose the candidates that span the most predicted hypervolume.

    Feasible ones, each adding the most to the feasible members. Where these are fewer than
    may be chosen, those follow that nearly meet the constraints and that no feasible one beats,
    since predictions may err: one that is alone would have the time of all. Where none adds
    anything, the least infeasible of the best rank are chosen, however far they are: a search
    with hard constraints still shows how near it came.
    Time is shared by the root of the accuracy that is expected to stay lost:
    none where nothing is lost already.

    Args:
        evaluations: `n` trials.
        values: Their predicted values.
        losses: `n x m` predicted losses.
        violations: `n` largest predicted violations; at most 0 is feasible.
        reference: `m` losses, the reference point.
        gaps: The `n` accuracies that they lack so far.
        baseline_accuracy: The original's, on `val`.
        count: How many to choose at most, those in `members` not counted.
        members: Slots that are members already and need no more training.

    Returns:
        Finalists from the least compressed to the most, so that a later one
        can start from the weights of an earlier one.
    """
    done = [i for i, e in enumerate(evaluations) if e.slot in members]
    feasible = [i for i in range(len(evaluations)) if violations[i] <= 0.0]
    kept = tuple(feasible.index(i) for i in done if i in feasible)
    local = greedy_hypervolume(losses[feasible], reference, count, kept)
    picked = [feasible[i] for i in local]
    ranks = non_dominated_rank(losses)
    rest = [i for i in range(len(evaluations)) if i not in done and i not in picked]
    rest.sort(key=lambda i: (max(0.0, violations[i]), ranks[i], evaluations[i].slot))
    ahead = losses[sorted({*picked, *done} & {*feasible})]
    near = [i for i in rest if 0.0 < violations[i] <= NEAR and not _is_beaten(losses[i], ahead)]
    picked = [*picked, *(near if picked else rest)][:count]
    needs = {i: _need(gaps[i], baseline_accuracy - values[i]["accuracy"]) for i in picked}
    total = sum(needs.values()) or 1.0
    chosen = [
        Finalist(evaluation=evaluations[i], predicted=values[i], share=needs[i] / total)
        for i in picked
    ]
    return sorted(chosen, key=lambda f: (-f.predicted["macs"], f.evaluation.slot))


def _is_beaten(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    return bool((others <= losses).all(axis=1).any())


def _need(gap: float, predicted: float) -> float:
    return 0.0 if gap <= NO_GAP else float(max(predicted, NO_GAP) ** 0.5)
