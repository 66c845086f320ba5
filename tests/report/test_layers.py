import pytest

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.report.layers import known_structure, layer_changes

STRUCTURE = {
    "layers": [{"name": "conv1"}, {"name": "layer1.0.conv1"}, {"name": "fc"}],
    "groups": [
        {"name": "conv1", "outputs": {"conv1": 1.0}},
        {"name": "layer1.0.conv1", "outputs": {"layer1.0.conv1": 0.5}},
    ],
}


def test_every_layer_has_what_is_left_of_it() -> None:
    candidate = Candidate(
        pruning_ratios={"conv1": 0.25, "layer1.0.conv1": 0.5},
        layers={"fc": LayerConfig(weight_bits=4, activation_bits=8, sparsity=0.5)},
    )
    changes = layer_changes(candidate, STRUCTURE)
    assert list(changes) == ["conv1", "layer1.0.conv1", "fc"]
    assert [change.kept for change in changes.values()] == pytest.approx([0.75, 0.75, 1.0])
    fc = changes["fc"]
    assert (fc.weight_bits, fc.activation_bits, fc.sparsity) == (4, 8, 0.5)
    assert changes["conv1"].weight_bits == 32


def test_nothing_is_left_of_a_dropped_block() -> None:
    changes = layer_changes(Candidate(dropped_blocks=("layer1.0",)), STRUCTURE)
    assert changes["layer1.0.conv1"].dropped
    assert changes["layer1.0.conv1"].kept == 0.0
    assert not changes["conv1"].dropped


def test_an_older_study_has_the_layers_that_its_members_name() -> None:
    config = LayerConfig(weight_bits=8, activation_bits=8)
    known = known_structure([Candidate(layers={"b": config}, pruning_ratios={"a": 0.5})])
    changes = layer_changes(Candidate(pruning_ratios={"a": 0.5}), known)
    assert {name: change.kept for name, change in changes.items()} == {"a": 0.5, "b": 1.0}
