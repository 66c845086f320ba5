from typing import Any

import numpy as np

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.report.importance import (
    FEWEST_TRIALS,
    TRAINED,
    choice_table,
    trial_importances,
)


def rows(count: int) -> list[dict[str, Any]]:
    """Trials: bits decide accuracy, a block latency, the weight what training reaches."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        bits, dropped = int(generator.choice([2, 4, 8])), bool(generator.integers(2))
        weight, ratio = float(generator.uniform()), float(generator.choice([0.0, 0.5]))
        candidate = Candidate(
            pruning_ratios={"a": ratio},
            dropped_blocks=("block",) if dropped else (),
            layers={"a": LayerConfig(weight_bits=bits, activation_bits=8)},
            distill=DistillConfig(kd_weight=weight),
        )
        found.append(
            {
                "candidate": candidate.to_json(),
                "predicted_accuracy": 0.5 + 0.05 * bits,
                "latency_ms_predicted": 1.0 if dropped else 2.0,
                "accuracy_1": 0.5 + 0.1 * weight,
            }
        )
    return found


def test_each_quantity_is_explained_by_what_decides_it() -> None:
    found = {item.quantity: item for item in trial_importances(rows(60), ["latency_ms"])}
    assert list(found) == ["accuracy", "latency_ms", TRAINED]
    deciding = {
        name: max(item.losses, key=lambda kind: item.losses[kind]) for name, item in found.items()
    }
    assert deciding == {"accuracy": "bits", "latency_ms": "blocks", TRAINED: "distillation"}
    assert all(item.explained > 0.8 for item in found.values())
    assert "distillation" not in found["accuracy"].losses


def test_few_trials_and_constant_quantities_explain_nothing() -> None:
    assert trial_importances(rows(FEWEST_TRIALS - 1), ["latency_ms"]) == []
    same = [row | {"predicted_accuracy": 0.5, "accuracy_1": None} for row in rows(30)]
    assert trial_importances(same, ["bops"]) == []


def test_the_same_trials_give_the_same_importances() -> None:
    assert trial_importances(rows(30), ["latency_ms"]) == trial_importances(
        rows(30), ["latency_ms"]
    )


def test_only_choices_that_vary_are_columns() -> None:
    same = Candidate(pruning_ratios={"a": 0.5})
    table, kinds = choice_table([same, Candidate(pruning_ratios={"a": 0.25}, criterion="l2")])
    assert table.shape == (2, 3)
    assert kinds == ["pruning"] * 3


def test_features_that_are_matched_are_part_of_the_distillation() -> None:
    plain, taught = DistillConfig(), DistillConfig(method="attention", feature_weight=0.5)
    table, kinds = choice_table([Candidate(distill=plain), Candidate(distill=taught)])
    assert kinds == ["distillation"] * 3  # the weight, and by which method
    assert table.tolist() == [[0.0, 1.0, 0.0], [0.5, 0.0, 1.0]]
