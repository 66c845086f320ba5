"""The switches of every method leave what they say of a search space."""

import pytest

from autocompress.controller.methods import METHODS, PRUNING_STEP, USUAL, patched
from autocompress.controller.sampler import SAMPLER_NAMES
from autocompress.core.objective import parse_objectives
from autocompress.core.target import FLOAT, Target
from autocompress.core.training import TrainingConfig
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph


def bound(space: SearchSpace) -> BoundSpace:
    costs = ["latency_ms", "size_bytes"]
    return space.bind_graph(residual_graph(), Target.named("onnxruntime-cpu"), costs)


def bits_of(space: BoundSpace) -> set[int]:
    return {config.weight_bits for n in range(40) for config in space.sample(n).layers.values()} - {
        FLOAT
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_search_that_can_be_run(name: str) -> None:
    method = METHODS[name]
    assert bound(method.space_of(SearchSpace.load("cnn"))).parameters
    assert method.sampler in SAMPLER_NAMES
    assert TrainingConfig.from_mapping(method.training)
    assert method.objectives is None or parse_objectives(method.objectives)
    assert method.title


def test_the_usual_methods_are_known_and_begin_with_the_joint_one() -> None:
    assert tuple(METHODS)[: len(USUAL)] == USUAL
    assert USUAL[0] == "joint"


@pytest.mark.parametrize(
    ("name", "prunes", "drops", "narrow", "teaches"),
    [
        ("joint", True, True, True, True),
        ("pruning-only", True, True, False, True),
        ("bits-only", False, False, True, True),
        ("no-blocks", True, False, True, True),
        ("no-distillation", True, True, True, False),
        ("uniform", True, False, True, False),
    ],
)
def test_a_method_takes_away_what_its_name_says(
    name: str, prunes: bool, drops: bool, narrow: bool, teaches: bool
) -> None:
    space = bound(METHODS[name].space_of(SearchSpace.load("cnn")))
    assert bool(space.pruning_choices) == prunes
    assert bool(space.blocks) == drops
    assert bool(bits_of(space)) == narrow
    assert any(space.sample(n).distill.kd_weight > 0 for n in range(5)) == teaches


def test_eight_bits_are_all_or_nothing() -> None:
    whole = patched(SearchSpace.load("cnn"), {"blocks": {"drop": False}})
    space = bound(METHODS["pruning-int8"].space_of(whole))
    for n in range(20):
        assert {config.weight_bits for config in space.sample(n).layers.values()} <= {8}
        assert len(space.sample(n).layers) in (0, len(bound(whole).layers))


def test_fixed_distillation_is_fixed() -> None:
    space = bound(METHODS["fixed-distillation"].space_of(SearchSpace.load("cnn")))
    distills = {space.sample(n).distill for n in range(5)}
    assert {(d.temperature, d.kd_weight) for d in distills} == {(4.0, 0.9)}


def test_a_patch_leaves_the_rest_and_the_original_alone() -> None:
    space = SearchSpace.load("cnn")
    changed = patched(space, PRUNING_STEP)
    assert changed.pruning == space.pruning
    assert changed.quantisation.weight_bits == (32,)
    assert space.quantisation.weight_bits != (32,)
