import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.candidate import METHODS, Candidate, DistillConfig, LayerConfig
from autocompress.errors import InvalidInputError, WrongTypeError

names = st.sampled_from(["conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0", "fc"])
blocks = st.sampled_from(["layer1.0", "layer1.1", "layer2"])
bit_widths = {
    "weight_bits": st.one_of(st.integers(1, 8), st.just(32)),
    "activation_bits": st.one_of(st.integers(2, 8), st.just(32)),
}
layer_configs = st.builds(
    LayerConfig, sparsity=st.floats(0.0, 1.0, exclude_max=True), **bit_widths
) | st.builds(LayerConfig, sparsity=st.just(0.75), sparsity_pattern=st.just("1:4"), **bit_widths)
distill_configs = st.builds(
    DistillConfig,
    temperature=st.floats(0.1, 20.0) | st.integers(1, 20),
    kd_weight=st.floats(0.0, 1.0) | st.integers(0, 1),
    feature_weight=st.floats(0.0, 10.0),
    method=st.sampled_from(METHODS[1:]),
)
candidates = st.builds(
    Candidate,
    pruning_ratios=st.dictionaries(names, st.floats(0.0, 1.0, exclude_max=True)),
    dropped_blocks=st.lists(blocks).map(tuple),
    layers=st.dictionaries(names, layer_configs),
    distill=distill_configs,
)


@given(candidates)
def test_a_candidate_survives_json_pickle_and_copy(candidate: Candidate) -> None:
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert pickle.loads(pickle.dumps(candidate)) == candidate
    assert copy.deepcopy(candidate) == candidate


@given(candidates)
def test_the_canonical_form_is_stable_and_names_nothing_dropped(candidate: Candidate) -> None:
    canonical = candidate.canonical()
    assert canonical.canonical() == canonical
    assert canonical.dropped_blocks == candidate.dropped_blocks
    assert not any(map(canonical.drops, [*canonical.layers, *canonical.pruning_ratios]))
    assert all(ratio > 0 for ratio in canonical.pruning_ratios.values())
    for name in ["conv1", "layer1.0.conv1", "fc"]:
        if not candidate.drops(name):
            assert canonical.layer(name) == candidate.layer(name)


@given(candidates)
def test_equal_candidates_hash_alike_whatever_the_order(candidate: Candidate) -> None:
    reversed_order = Candidate(
        pruning_ratios=dict(reversed(candidate.pruning_ratios.items())),
        dropped_blocks=(*reversed(candidate.dropped_blocks), *candidate.dropped_blocks),
        layers=dict(reversed(candidate.layers.items())),
        distill=candidate.distill,
    )
    assert reversed_order == candidate
    assert hash(reversed_order) == hash(candidate)
    assert reversed_order.to_json() == candidate.to_json()


def test_integers_and_negative_zeros_hash_like_the_floats_they_equal() -> None:
    one = Candidate(
        pruning_ratios={"conv1": 0},
        layers={"conv1": LayerConfig(sparsity=-0.0)},
        distill=DistillConfig(temperature=4, kd_weight=1),
    )
    other = Candidate(
        pruning_ratios={"conv1": -0.0},
        layers={"conv1": LayerConfig(sparsity=0.0)},
        distill=DistillConfig(temperature=4.0, kd_weight=1.0),
    )
    assert one == other
    assert hash(one) == hash(other)


def test_drops_covers_what_is_inside_a_block_and_no_namesake() -> None:
    candidate = Candidate(dropped_blocks=("layer1.1",))
    assert candidate.drops("layer1.1")
    assert candidate.drops("layer1.1.conv1")
    assert not candidate.drops("layer1.10.conv1")
    assert not candidate.drops("layer1")


def test_a_candidate_does_not_follow_the_dictionary_it_was_made_from() -> None:
    ratios = {"conv1": 0.5}
    candidate = Candidate(pruning_ratios=ratios)
    ratios["conv1"] = 0.9
    assert candidate.pruning_ratios["conv1"] == 0.5
    with pytest.raises(TypeError):
        candidate.pruning_ratios["conv1"] = 0.1  # type: ignore[index]


def test_the_json_carries_its_version() -> None:
    assert json.loads(Candidate().to_json())["schema_version"] == 1


@pytest.mark.parametrize(
    "values",
    [
        {"weight_bits": 0},
        {"weight_bits": 9},
        {"weight_bits": 16},
        {"activation_bits": 1},
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"sparsity": float("nan")},
        {"weight_format": "log"},
        {"sparsity_pattern": "4:4"},
        {"sparsity": 0.5, "sparsity_pattern": "1:4"},
        {"sparsity": 0.25, "sparsity_pattern": "2:4"},
        {"sparsity": 0.0, "sparsity_pattern": "2:4"},
    ],
)
def test_layer_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"'{next(iter(values))}'"):
        LayerConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"kd_weight": 1.5},
        {"feature_weight": -1.0},
        {"feature_weight": 1.0},
        {"method": "feature"},
    ],
)
def test_distillation_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"'{next(iter(values))}'"):
        DistillConfig(**values)


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_pruning_ratios_out_of_range_are_refused(ratio: float) -> None:
    with pytest.raises(InvalidInputError, match=r"pruning_ratios\['conv1'\]"):
        Candidate(pruning_ratios={"conv1": ratio})


@pytest.mark.parametrize(
    "values",
    [
        {"pruning_ratios": {"conv1": "half"}},
        {"pruning_ratios": [0.5]},
        {"dropped_blocks": "layer1.0"},
        {"dropped_blocks": (1,)},
        {"layers": {"conv1": {"weight_bits": 8}}},
        {"layers": ()},
        {"criterion": 1},
    ],
)
def test_values_of_another_type_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(WrongTypeError, match=next(iter(values))):
        Candidate(**values)


def test_bits_of_another_type_are_refused() -> None:
    with pytest.raises(WrongTypeError, match="'weight_bits': expected an integer"):
        LayerConfig(weight_bits=8.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"pruning_ratio": {}}',
        '{"schema_version": 99}',
        '{"layers": {"conv1": {"bits": 8}}}',
        '{"distill": {"temperature": -1}}',
    ],
)
def test_damaged_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Candidate.from_json(text)


@pytest.mark.parametrize(
    "text", ["[]", '{"pruning_ratios": []}', '{"dropped_blocks": "a"}', '{"layers": {"a": 8}}']
)
def test_json_of_another_type_is_refused(text: str) -> None:
    with pytest.raises(WrongTypeError):
        Candidate.from_json(text)


def test_the_criterion_of_a_candidate_that_prunes_nothing_has_no_effect() -> None:
    idle = Candidate(pruning_ratios={"a.conv": 0.5}, dropped_blocks=("a",), criterion="taylor")
    assert idle.canonical() == Candidate(dropped_blocks=("a",))
    busy = Candidate(pruning_ratios={"b.conv": 0.5}, dropped_blocks=("a",), criterion="taylor")
    assert busy.canonical() == busy


def test_candidates_written_before_patterns_are_read() -> None:
    record = json.loads(Candidate(layers={"a": LayerConfig(sparsity=0.25)}).to_json())
    del record["layers"]["a"]["sparsity_pattern"]
    assert Candidate.from_json(json.dumps(record)).layer("a") == LayerConfig(sparsity=0.25)


def test_an_unknown_criterion_is_refused_with_the_closest_name() -> None:
    with pytest.raises(InvalidInputError, match=r"'criterion': expected one of .*'l1'.*got 'l3'"):
        Candidate(criterion="l3")
