import pytest

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.evaluation import MeasuredMember
from autocompress.report.summary import describe, front_rows

BASELINE = {
    "fp32": {"val_accuracy": 0.9, "latency_ms": 2.0},
    "int8": {"val_accuracy": 0.89, "latency_ms": 1.0},
}


def member(id: str, latency_ms: float) -> MeasuredMember:
    return MeasuredMember(
        id=id,
        candidate=Candidate(dropped_blocks=("layer1.0", "layer1.1")),
        predicted={"accuracy": 0.88},
        measured={"val_accuracy": 0.87, "latency_ms": latency_ms},
        path=f"front/{id}/model.onnx",
    )


def test_baselines_come_first_and_members_from_slow_to_fast() -> None:
    rows = front_rows(BASELINE, [member("fast", 0.5), member("slow", 0.8)])
    assert [row.id for row in rows] == ["original", "plain int8", "slow", "fast"]
    assert [row.is_baseline for row in rows] == [True, True, False, False]
    assert [row.latency_ratio for row in rows] == [1.0, 0.5, 0.4, 0.25]


def test_predictions_and_measurements_stay_apart() -> None:
    original, fast = front_rows({"fp32": BASELINE["fp32"]}, [member("fast", 0.5)])
    assert original.predicted == {}
    assert fast.predicted == {"accuracy": 0.88}
    assert fast.measured["val_accuracy"] == 0.87
    assert fast.done == "2 blocks dropped"


def test_without_a_latency_there_is_no_ratio() -> None:
    (row,) = front_rows({"fp32": {"val_accuracy": 0.9}}, [])
    assert row.latency_ratio is None


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
    ],
)
def test_a_candidate_in_words(candidate: Candidate, words: str) -> None:
    assert describe(candidate) == words
