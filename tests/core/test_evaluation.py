import json

import pytest

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import (
    Evaluation,
    FidelityResult,
    MeasuredMember,
    baselines,
    front_document,
)
from autocompress.errors import InvalidInputError

MEMBER = MeasuredMember(
    id="0007",
    candidate=Candidate(pruning_ratios={"conv1": 0.5}),
    predicted={"accuracy": 0.91, "latency_ms": 0.4},
    measured={
        "val_accuracy": 0.9,
        "accuracy": 0.88,
        "latency_ms": 0.42,
        "latency_ci95_ms": [0.41, 0.43],
        "size_bytes": 12_000,
    },
    path="front/0007/model.onnx",
)


def test_a_fidelity_result_survives_json() -> None:
    result = FidelityResult(accuracy=0.8, images=2000, trained_images=0, seconds=0.7)
    assert FidelityResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_fidelity_result_needs_everything() -> None:
    record = {"accuracy": 0.8, "images": 1, "trained_images": 0, "seconds": 0.1}
    with pytest.raises(InvalidInputError, match="'seconds'"):
        FidelityResult.from_json({key: record[key] for key in record if key != "seconds"})


def test_a_member_survives_json() -> None:
    assert MeasuredMember.from_json(json.loads(json.dumps(MEMBER.to_json()))) == MEMBER


def test_val_accuracy_decides_and_test_accuracy_does_not() -> None:
    values = MEMBER.values()
    assert values["accuracy"] == 0.9
    assert values["latency_ms"] == 0.42
    assert "latency_ci95_ms" not in values


def test_the_front_document_has_the_shape_that_others_read() -> None:
    document = front_document({"accuracy": 0.9}, [MEMBER])
    assert document["schema_version"] == 1
    assert document["baseline"] == {"accuracy": 0.9}
    assert set(document["front"][0]) == {"id", "candidate", "predicted", "measured", "path"}
    assert json.loads(json.dumps(document)) == document


def test_a_member_with_a_key_missing_is_refused() -> None:
    record = MEMBER.to_json()
    del record["measured"]
    with pytest.raises(InvalidInputError, match="'measured'"):
        MeasuredMember.from_json(record)


def test_an_evaluation_starts_without_results() -> None:
    evaluation = Evaluation(slot=0, candidate=Candidate(), origin="original")
    assert evaluation.fidelities == {}
    assert evaluation.predicted_accuracy is None


def test_the_baseline_of_a_front_document_is_the_original_with_int8_inside() -> None:
    record = {"latency_ms": 2.0, "int8": {"latency_ms": 1.0}}
    assert baselines(record) == {"fp32": {"latency_ms": 2.0}, "int8": {"latency_ms": 1.0}}
    assert baselines({"latency_ms": 2.0}) == {"fp32": {"latency_ms": 2.0}}
    assert baselines({}) == {}
