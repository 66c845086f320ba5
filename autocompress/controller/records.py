"""What an Optuna trial of ours says: an evaluation, or a row of a table."""

from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from autocompress.controller.joint import ROUND
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.target import FLOAT

_FIDELITY = "fidelity:"

FINAL = "fidelity:2:"
"""Prefix of the study's user attributes that hold full fine-tunes, by slot."""


def fidelity_key(fidelity: int) -> str:
    """Return the user attribute that holds the result at a fidelity."""
    return f"{_FIDELITY}{fidelity}"


def evaluation(trial: FrozenTrial, final: FidelityResult | None = None) -> Evaluation:
    """Read everything that is known about the candidate of a trial.

    Args:
        trial: The trial.
        final: What its full fine-tune found, which the trial cannot hold.
    """
    attributes = trial.user_attrs
    found = _fidelities(attributes) | ({} if final is None else {2: final})
    return Evaluation(
        slot=attributes["slot"],
        candidate=Candidate.from_json(attributes["candidate"]),
        origin=attributes["origin"],
        fidelities=found,
        costs=attributes.get("costs", {}),
        predicted_accuracy=attributes.get("predicted_accuracy"),
        failed=trial.state == TrialState.PRUNED and bool(found),
    )


def row(trial: FrozenTrial, final: FidelityResult | None = None) -> dict[str, Any]:
    """Flatten a trial into named cells; the candidate is one cell, as JSON."""
    known = evaluation(trial, final)
    candidate = known.candidate
    ratios = list(candidate.pruning_ratios.values())
    layers = candidate.layers.values()
    bits = [config.weight_bits for config in layers if config.weight_bits != FLOAT]
    sparse = [config.sparsity for config in layers if config.sparsity > 0.0]
    stopped = trial.state in (TrialState.PRUNED, TrialState.FAIL)
    return {
        "slot": known.slot,
        "state": trial.state.name.lower(),
        "origin": known.origin,
        "attempt": trial.user_attrs["attempt"],
        "dropped_blocks": len(candidate.dropped_blocks),
        "pruned_groups": len(ratios),
        "mean_pruning_ratio": sum(ratios) / len(ratios) if ratios else 0.0,
        "quantised_layers": len(bits),
        "mean_weight_bits": sum(bits) / len(bits) if bits else None,
        "sparse_layers": len(sparse),
        "mean_sparsity": sum(sparse) / len(sparse) if sparse else 0.0,
        "temperature": candidate.distill.temperature,
        "kd_weight": candidate.distill.kd_weight,
        "feature_weight": candidate.distill.feature_weight,
        **{f"accuracy_{level}": found.accuracy for level, found in known.fidelities.items()},
        "predicted_accuracy": known.predicted_accuracy,
        **known.costs,
        "seconds": sum(found.seconds for found in known.fidelities.values()),
        "reason": trial.user_attrs.get("reason", "interrupted" if stopped else ""),
        "candidate": candidate.to_json(),
    }


def finals(study: Study) -> dict[int, FidelityResult]:
    """Return the results of full fine-tunes, by slot."""
    return {
        int(key.removeprefix(FINAL)): FidelityResult.from_json(record)
        for key, record in study.user_attrs.items()
        if key.startswith(FINAL)
    }


def rounds(study: Study) -> list[dict[str, Any]]:
    """Return what each fit of the sampler's predictors showed, as JSON objects, in order."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    found = [value for key, value in attributes.items() if key.startswith(f"{ROUND}:")]
    return sorted(found, key=lambda fit: int(fit["trials"]))


def _fidelities(attributes: Mapping[str, Any]) -> dict[int, FidelityResult]:
    return {
        int(key.removeprefix(_FIDELITY)): FidelityResult.from_json(value)
        for key, value in sorted(attributes.items())
        if key.startswith(_FIDELITY)
    }
