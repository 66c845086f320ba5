import dataclasses

import pytest

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.evaluation import MeasuredMember
from autocompress.report.summary import (
    baseline_rows,
    binomial_interval,
    describe,
    measured_words,
    member_rows,
    timing_notes,
)

BASELINE = {
    "fp32": {"val_accuracy": 0.9, "latency_ms": 2.0},
    "int8": {"val_accuracy": 0.89, "latency_ms": 1.0},
}


def member(id: str, latency_ms: float) -> MeasuredMember:
    return MeasuredMember(
        id=id,
        candidate=Candidate(dropped_blocks=("layer1.0", "layer1.1")),
        predicted={"accuracy": 0.88, "latency_ms": 0.4},
        measured={"val_accuracy": 0.87, "latency_ms": latency_ms},
        path=f"front/{id}/model.onnx",
    )


def test_the_front_goes_from_slow_to_fast_and_others_stay_in_order() -> None:
    members = [member("fast", 0.5), member("slow", 0.8), member("slower", 0.9)]
    front = member_rows(members, "front", BASELINE)
    assert [row.id for row in front] == ["slower", "slow", "fast"]
    assert [row.latency_ratio for row in front] == [0.45, 0.4, 0.25]
    others = member_rows(members, "infeasible", BASELINE)
    assert [row.id for row in others] == ["fast", "slow", "slower"]
    assert {row.kind for row in others} == {"infeasible"}


def test_baselines_are_named_and_have_no_prediction() -> None:
    rows = baseline_rows(BASELINE)
    assert [row.id for row in rows] == ["original", "plain int8"]
    assert [row.latency_ratio for row in rows] == [1.0, 0.5]
    for row in rows:
        assert (row.kind, row.predicted) == ("baseline", {})
        assert row.accuracy_error is None
        assert row.latency_error is None


def test_predictions_and_measurements_stay_apart() -> None:
    (fast,) = member_rows([member("fast", 0.5)], "front", BASELINE)
    assert fast.predicted == {"accuracy": 0.88, "latency_ms": 0.4}
    assert fast.measured["val_accuracy"] == 0.87
    assert fast.done == "2 blocks dropped"


def test_errors_are_measured_minus_predicted() -> None:
    (fast,) = member_rows([member("fast", 0.5)], "front", BASELINE)
    assert fast.accuracy_error == pytest.approx(0.87 - 0.88)
    assert fast.latency_error == pytest.approx(0.5 / 0.4 - 1)


def test_latencies_of_other_runs_are_told_of() -> None:
    one = member("a", 1.0)
    other = dataclasses.replace(one, measured=dict(one.measured) | {"latency_scale": 1.2})
    (note,) = timing_notes(member_rows([one, other], "front", BASELINE))
    assert "1 of 2 latencies are from other runs" in note
    assert timing_notes(member_rows([one], "front", BASELINE)) == []


def test_without_a_latency_there_is_no_ratio_and_no_error() -> None:
    (row,) = baseline_rows({"fp32": {"val_accuracy": 0.9}})
    assert row.latency_ratio is None
    unmeasured = dataclasses.replace(member("x", 1.0), measured={"val_accuracy": 0.9})
    (row,) = member_rows([unmeasured], "front", BASELINE)
    assert (row.latency_ratio, row.latency_error) == (None, None)


def layers(*bits: tuple[int, int]) -> dict[str, LayerConfig]:
    return {
        f"conv{index}": LayerConfig(weight_bits=weights, activation_bits=activations)
        for index, (weights, activations) in enumerate(bits)
    }


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Candidate(), "nothing"),
        (Candidate(pruning_ratios={"conv1": 0.0}, layers=layers((32, 32))), "nothing"),
        (Candidate(layers=layers((8, 8), (8, 8))), "W8 A8"),
        (Candidate(layers=layers((4, 8), (8, 8))), "W4-8 A8"),
        (
            Candidate(pruning_ratios={"a": 0.2, "b": 0.4}, dropped_blocks=("c",)),
            "1 block dropped, 30 % of the channels of 2 groups",
        ),
        (
            Candidate(layers={"a": LayerConfig(sparsity=0.5), "b": LayerConfig(sparsity=0.7)}),
            "60 % zeros in 2 layers",
        ),
        (
            Candidate(
                layers={
                    "a": LayerConfig(weight_bits=4, activation_bits=8, weight_format="codebook")
                }
            ),
            "W4 A8, codebooks",
        ),
    ],
)
def test_a_candidate_in_words(candidate: Candidate, words: str) -> None:
    assert describe(candidate) == words


def test_noisy_latencies_are_counted() -> None:
    quiet = baseline_rows(BASELINE)
    assert timing_notes(quiet) == []
    noisy = dataclasses.replace(quiet[0], measured={"latency_ms": 2.0, "latency_noisy": True})
    untimed = dataclasses.replace(quiet[0], measured={"latency_noisy": True})
    [note] = timing_notes([noisy, quiet[1], untimed])
    assert "too noisy for 1 of 2 latencies" in note


@pytest.mark.parametrize(
    ("latencies", "words"),
    [
        (
            (0.6, 0.62, 0.8),
            "above what was predicted, half of them by 55% or more",
        ),
        (
            (0.2, 0.3, 0.1),
            "below what was predicted, half of them by 50% or more",
        ),
        ((0.6, 0.62, 0.41), ""),
        ((0.6, 0.62), ""),
    ],
)
def test_a_host_of_another_speed_is_told_of(latencies: tuple[float, ...], words: str) -> None:
    members = [member(str(ms), ms) for ms in latencies]
    rows = [*baseline_rows(BASELINE), *member_rows(members, "front", BASELINE)]
    notes = timing_notes(rows)
    assert [words in note for note in notes] == ([True] if words else [])


def test_what_a_simulation_computes_is_not_called_measured() -> None:
    row = member_rows([member("0001", 1.0)], "front", {})[0]
    assert measured_words([row]) == "all else is measured on the artifact"
    simulated = dataclasses.replace(row, measured={**row.measured, "device": "npu, simulated"})
    assert "computed by the simulation" in measured_words([row, simulated])


def test_a_fraction_beyond_one_has_an_interval() -> None:
    assert binomial_interval(1.2, 300) == binomial_interval(1.0, 300)
