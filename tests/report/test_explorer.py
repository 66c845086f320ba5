import dataclasses
import json

import pytest

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.evaluation import MeasuredMember
from autocompress.report.explorer import as_script, explorer_data, rounded

MEMBER = MeasuredMember(
    id="0042",
    candidate=Candidate(
        pruning_ratios={"conv1": 0.25},
        dropped_blocks=("block",),
        layers={"conv1": LayerConfig(weight_bits=4, activation_bits=8)},
    ),
    predicted={"accuracy": 0.8, "latency_ms": 0.7},
    measured={"val_accuracy": 0.87654, "latency_ms": 0.81239, "size_bytes": 2500},
    path="front/0042/model.onnx",
)
STRUCTURE = {
    "layers": [{"name": "conv1"}, {"name": "block.conv"}],
    "groups": [{"name": "conv1", "outputs": {"conv1": 1.0}}],
}


def test_members_carry_their_layers_and_both_kinds_of_values() -> None:
    data = explorer_data({"front": [MEMBER]}, ["latency_ms", "bops"], STRUCTURE, "a study")
    assert (data["layers"], data["costs"]) == (["conv1", "block.conv"], ["latency_ms"])
    assert data["shell"] == "'a study'"
    (member,) = data["members"]
    assert (member["id"], member["kind"]) == ("0042", "front")
    assert (member["kept"], member["weights"], member["activations"]) == (
        [75, 0],
        [4, None],
        [8, None],
    )
    assert member["predicted"] == {"accuracy": 0.8, "latency_ms": 0.7}
    assert member["test"] is None


def test_members_say_how_they_were_taught() -> None:
    distill = DistillConfig(method="relation", feature_weight=2.0)
    taught = dataclasses.replace(MEMBER, candidate=Candidate(distill=distill))
    untrained = dataclasses.replace(MEMBER, measured={**MEMBER.measured, "trained_images": 0})
    data = explorer_data({"front": [MEMBER, taught, untrained]}, ["latency_ms"], STRUCTURE, "s")
    assert [member["distillation"] for member in data["members"]] == [
        "temperature 4, kd_weight 0.9",
        "temperature 4, kd_weight 0.9, relation with feature_weight 2",
        "none, since it was not trained",
    ]


def test_limits_allow_the_members_that_they_stand_for() -> None:
    data = explorer_data({"front": [MEMBER]}, ["latency_ms"], STRUCTURE, "study")
    accuracy, latency = data["sliders"]
    assert accuracy["values"] == [0.8765]
    assert latency["values"] == [0.8124]


@pytest.mark.parametrize("value", [0.000123456, 0.3, 1.0, 123456.0, 98765.4321])
def test_rounding_never_crosses_the_value(value: float) -> None:
    up, down = rounded(value, 4, up=True), rounded(value, 4, up=False)
    assert down <= value * (1 + 1e-12)
    assert up >= value * (1 - 1e-12)
    assert up - down <= 1.001e-3 * value


def test_data_cannot_end_the_script_that_holds_it() -> None:
    text = as_script({"study": "</script><!-- &"})
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == {"study": "</script><!-- &"}
