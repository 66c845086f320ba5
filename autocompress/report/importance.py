"""What each kind of choice decided in the trials: grouped permutation importance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold

from autocompress.core.candidate import Candidate

KINDS = ("pruning", "blocks", "bits", "sparsity", "distillation")
"""Kinds of choices, in the order in which the report shows them."""

FEWEST_TRIALS = 20
"""Trials below which nothing is said."""

TREES, FOLDS = 60, 5
"""Size of a forest, and parts of the trials that are left out in turn."""

TRAINED = "accuracy after a short fine-tune"
"""What distillation can have an effect on; the other quantities are known before training."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much of one quantity each kind of choice explains.

    Attributes:
        quantity: "accuracy" (predicted), `TRAINED` or a cost.
        explained: Share of the variance that a forest explains of trials that
            it was not fitted to; at most 1, and not above 0 where it fails.
        losses: By kind: the share of the variance that is lost when the
            choices of that kind are shuffled among those trials, >= 0.
    """

    quantity: str
    explained: float
    losses: Mapping[str, float]


def trial_importances(
    rows: Sequence[Mapping[str, Any]], costs: Sequence[str], seed: int = 0
) -> list[Importance]:
    """Find what each kind of choice decided over the trials of a study.

    A forest of extremely randomised trees (Geurts et al. 2006) learns from all
    choices. In parts of the trials that it has not seen, the choices of one
    kind are shuffled together (permutation importance, Breiman 2001), and what
    that loses of the explained variance is the importance of the kind.
    Distillation acts in training alone, and is asked of trained trials only.

    Args:
        rows: Trials, each with "candidate" as JSON, "predicted_accuracy",
            "accuracy_1" where it was trained, and costs, predicted ones as
            "<cost>_predicted".
        costs: The costs to explain beside accuracy, on a logarithmic scale.
        seed: Seed of forests and shuffles.

    Returns:
        One entry per quantity with at least `FEWEST_TRIALS` trials that differ.
    """
    known = [row for row in rows if row.get("predicted_accuracy") is not None]
    targets = {"accuracy": [float(row["predicted_accuracy"]) for row in known]}
    for cost in costs:
        values = [row.get(f"{cost}_predicted", row.get(cost)) for row in known]
        if all(value is not None and value > 0 for value in values):
            targets[cost] = np.log(np.array(values, dtype=np.float64)).tolist()
    before = tuple(kind for kind in KINDS if kind != "distillation")
    trained = [row for row in rows if _is_number(row.get("accuracy_1"))]
    after = {TRAINED: [float(row["accuracy_1"]) for row in trained]}
    return [
        *_importances(known, targets, before, seed),
        *_importances(trained, after, KINDS, seed),
    ]


def choice_table(candidates: Sequence[Candidate]) -> tuple[FloatArray, list[str]]:
    """Lay the choices of candidates out as a table.

    Args:
        candidates: The n candidates.

    Returns:
        `n x d` numbers, without columns that do not vary, and the kind of
        each of the d columns.
    """
    columns: dict[tuple[str, str], dict[int, float]] = {}
    defaults: dict[tuple[str, str], float] = {}

    def put(kind: str, name: str, row: int, value: float, default: float = 0.0) -> None:
        columns.setdefault((kind, name), {})[row] = value
        defaults[kind, name] = default

    for row, candidate in enumerate(candidates):
        for name, ratio in candidate.pruning_ratios.items():
            put("pruning", name, row, ratio)
        put("pruning", f"by {candidate.criterion}", row, 1.0)
        for name in candidate.dropped_blocks:
            put("blocks", name, row, 1.0)
        for name, config in candidate.layers.items():
            put("bits", f"{name} W", row, np.log2(config.weight_bits), np.log2(32.0))
            put("bits", f"{name} A", row, np.log2(config.activation_bits), np.log2(32.0))
            put("sparsity", name, row, config.sparsity)
        put("distillation", "temperature", row, np.log(candidate.distill.temperature))
        put("distillation", "kd_weight", row, candidate.distill.kd_weight)
        put("distillation", "feature_weight", row, candidate.distill.feature_weight)
        put("distillation", f"by {candidate.distill.method}", row, 1.0)
    table = np.array(
        [
            [cells.get(row, defaults[key]) for key, cells in columns.items()]
            for row in range(len(candidates))
        ],
        dtype=np.float64,
    )
    varying = np.ptp(table, axis=0) > 0.0
    kinds = [kind for (kind, _), varies in zip(columns, varying, strict=True) if varies]
    return table[:, varying], kinds


def _importances(
    rows: Sequence[Mapping[str, Any]],
    targets: Mapping[str, Sequence[float]],
    allowed: Sequence[str],
    seed: int,
) -> list[Importance]:
    """Explain several quantities by one forest."""
    differing = {name: values for name, values in targets.items() if len(set(values)) > 1}
    if len(rows) < FEWEST_TRIALS or not differing:
        return []
    table, kinds = choice_table([Candidate.from_json(row["candidate"]) for row in rows])
    own = {kind: np.array([k == kind for k in kinds]) for kind in allowed if kind in kinds}
    if not own:
        return []
    values = np.array(list(differing.values()), dtype=np.float64).T
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    table = table * np.isin(kinds, allowed)  # trees never split on constants
    generator = np.random.default_rng(seed)
    errors: dict[str, list[FloatArray]] = {kind: [] for kind in ("", *own)}
    for fitted, left in KFold(FOLDS, shuffle=True, random_state=seed).split(table):
        forest = ExtraTreesRegressor(TREES, random_state=seed)
        forest.fit(table[fitted], values[fitted].squeeze())
        for kind in errors:
            changed = table[left].copy()
            if kind:
                shuffled = generator.permutation(left)
                changed[:, own[kind]] = table[shuffled][:, own[kind]]
            found = forest.predict(changed).reshape(len(left), -1)
            errors[kind].append((found - values[left]) ** 2)
    means = {kind: np.concatenate(parts).mean(axis=0) for kind, parts in errors.items()}
    return [
        Importance(
            quantity=name,
            explained=1.0 - float(means[""][number]),
            losses={k: max(0.0, float(means[k][number] - means[""][number])) for k in own},
        )
        for number, name in enumerate(differing)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value == value
