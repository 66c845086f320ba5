import pytest

from autocompress.report.explanations import importance_figure, layers_figure, sensitivity_figure
from autocompress.report.importance import Importance


def test_layers_have_channels_above_and_bits_below() -> None:
    member = {"kept": [50, 0], "weights": [4, None], "activations": [8, None]}
    channels, weights, activations = layers_figure(["a", "b"], member).data
    assert (list(channels.y), list(weights.y), list(activations.y)) == (
        [50, 0],
        [4, None],
        [8, None],
    )
    assert weights.yaxis == activations.yaxis == "y2"
    assert list(channels.x) == ["a", "b"]


def test_sensitivities_follow_the_model_and_grow_to_the_right() -> None:
    records = [
        {"kind": "precision", "part": "b.conv", "choice": "W2A8", "divergence": 1.0},
        {"kind": "precision", "part": "a", "choice": "W4A8", "divergence": 0.01},
        {"kind": "drop", "part": "b", "choice": "dropped", "divergence": 0.5},
        {"kind": "prune", "part": "a", "choice": "25 %", "divergence": 0.0},
    ]
    (heat,) = sensitivity_figure(records, ["a", "b.conv"]).data
    assert list(heat.y) == ["a", "b", "b.conv"]
    assert list(heat.x) == ["dropped", "25 %", "W4A8", "W2A8"]
    assert heat.z[2][3] == pytest.approx(0.0)
    assert heat.z[0][2] == pytest.approx(-2.0)
    assert heat.z[0][0] is None


def test_importances_are_shares_of_what_is_lost() -> None:
    found = Importance(quantity="accuracy", explained=0.9, losses={"bits": 0.6, "blocks": 0.2})
    shares = {trace.name: trace.x[0] for trace in importance_figure([found]).data}
    assert shares == pytest.approx({"bits": 75.0, "blocks": 25.0})


def test_costs_are_called_by_words() -> None:
    found = Importance(quantity="size_bytes", explained=0.9, losses={"bits": 0.6})
    assert list(importance_figure([found]).data[0].y) == ["size"]
