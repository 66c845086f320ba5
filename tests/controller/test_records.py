import optuna
import pytest

from autocompress.controller import records
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.evaluation import FidelityResult

CANDIDATE = Candidate(
    pruning_ratios={"a": 0.5, "b": 0.25},
    dropped_blocks=("layer1.1",),
    layers={"a": LayerConfig(weight_bits=4, activation_bits=8)},
)
PROXY = FidelityResult(accuracy=0.8, images=100, trained_images=0, seconds=1.5)
SHORT = FidelityResult(accuracy=0.9, images=100, trained_images=500, seconds=8.0)


def _trial(state: optuna.trial.TrialState, **attributes: object) -> optuna.trial.FrozenTrial:
    known = {"slot": 3, "attempt": 1, "origin": "tpe", "candidate": CANDIDATE.to_json()}
    finished = state == optuna.trial.TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state, values=[0.1, 1.0] if finished else None, user_attrs=known | attributes
    )


def test_an_evaluation_holds_every_fidelity_by_its_number() -> None:
    stored = {records.fidelity_key(1): SHORT.to_json(), records.fidelity_key(0): PROXY.to_json()}
    found = records.evaluation(
        _trial(optuna.trial.TrialState.COMPLETE, costs={"macs": 7.0}, **stored)
    )
    assert found.fidelities == {0: PROXY, 1: SHORT}
    assert (found.slot, found.origin, found.costs) == (3, "tpe", {"macs": 7.0})
    assert found.candidate == CANDIDATE
    assert found.predicted_accuracy is None


def test_a_trial_that_was_given_up_in_training_has_failed() -> None:
    pruned, proxied = optuna.trial.TrialState.PRUNED, {records.fidelity_key(0): PROXY.to_json()}
    assert records.evaluation(_trial(pruned, **proxied)).failed
    assert not records.evaluation(_trial(pruned)).failed  # over the limit of a cost
    complete = _trial(optuna.trial.TrialState.COMPLETE, **proxied)
    assert not records.evaluation(complete).failed


def test_a_row_sums_a_candidate_up() -> None:
    row = records.row(
        _trial(optuna.trial.TrialState.COMPLETE, **{records.fidelity_key(0): PROXY.to_json()})
    )
    assert row["mean_pruning_ratio"] == pytest.approx(0.375)
    assert (row["dropped_blocks"], row["pruned_groups"], row["mean_weight_bits"]) == (1, 2, 4)
    assert (row["accuracy_0"], row["seconds"], row["reason"]) == (0.8, 1.5, "")
    assert Candidate.from_json(row["candidate"]) == CANDIDATE


def test_stopped_trials_say_why() -> None:
    failed = _trial(optuna.trial.TrialState.FAIL, reason="it diverged")
    killed = _trial(optuna.trial.TrialState.FAIL)
    assert records.row(failed)["reason"] == "it diverged"
    assert records.row(killed)["reason"] == "interrupted"
