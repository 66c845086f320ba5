import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.target import Target
from autocompress.errors import InvalidInputError
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from autocompress.transform.compress import check_runnable
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(4, 32))
TWO_CRITERIA = replace(SPACE, criteria=("l1", "l2"))
SPACES = (
    SPACE,
    TWO_CRITERIA,
    SearchSpace.load("cnn").bind_graph(
        residual_graph(2, 16), Target.named("onnxruntime-cpu"), ["latency_ms"]
    ),
    SearchSpace.load({"distillation": {"temperature": {"low": 4, "high": 4}}}).bind_graph(
        residual_graph(1, 4)
    ),
    replace(SPACE, criteria=("taylor", "l2")),
    replace(SPACE, end_bits=8, weight_format="codebook", group_size=16),
)


def random_params(space: BoundSpace, rng: random.Random) -> dict[str, float]:
    return {
        p.name: rng.randint(int(p.low), int(p.high))
        if p.kind == "int"
        else rng.uniform(p.low, p.high)
        for p in space.parameters
    }


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 10**6))
def test_decode_inverts_encode(space, seed):
    rng = random.Random(seed)
    for candidate in (space.from_params(random_params(space, rng)), space.sample(seed)):
        row = space.encode(candidate)
        assert row.shape == (1, len(space.parameters))
        assert row.min() >= 0.0
        assert row.max() <= 1.0
        assert space.decode(row) == candidate.canonical() == candidate
        assert space.decode(row[0]) == candidate
        assert space.from_params(space.to_params(candidate)) == candidate


def test_decode_inverts_encode_for_candidates_written_by_hand():
    candidate = Candidate(
        pruning_ratios={"blocks.0.conv1": 0.5, "blocks.2.conv1": 0.25},
        dropped_blocks=("blocks.2",),
        layers={"conv1": LayerConfig(weight_bits=4, activation_bits=8), "fc": LayerConfig()},
        distill=DistillConfig(temperature=3.7, kd_weight=0.41),
    )
    assert SPACE.decode(SPACE.encode(candidate)) == candidate.canonical()
    assert "blocks.2.conv1" not in candidate.canonical().pruning_ratios


@pytest.mark.parametrize("space", SPACES)
def test_any_numbers_decode_to_a_candidate_of_the_space(space):
    rng = np.random.default_rng(0)
    for _ in range(20):
        candidate = space.decode(rng.uniform(-0.5, 1.5, len(space.parameters)))
        assert space.canonical(candidate) == candidate


def test_the_columns_are_the_parameters_in_order():
    names = [parameter.name for parameter in TWO_CRITERIA.parameters]
    assert names[:4] == [f"prune:blocks.{i}.conv1" for i in range(4)]
    assert names[4:7] == ["drop:blocks.1", "drop:blocks.2", "drop:blocks.3"]
    assert names[-3:] == ["criterion", "temperature", "kd_weight"]
    ratios = {"blocks.0.conv1": 0.5}
    row = TWO_CRITERIA.encode(
        Candidate(pruning_ratios=ratios, dropped_blocks=("blocks.2",), criterion="l2")
    )[0]
    assert dict(zip(names, row, strict=True))["drop:blocks.2"] == 1.0
    assert row[-3] == 1.0


def test_parameters_mean_what_they_say():
    params = SPACE.to_params(SPACE.uniform(32, 32, 0.0))
    params |= {"prune:blocks.1.conv1": 2, "drop:blocks.3": 1, "temperature": 2.0}
    params["precision:conv1"] = SPACE.layer_precisions.index((4, 8))
    candidate = SPACE.from_params(params)
    assert candidate.pruning_ratios == {"blocks.1.conv1": 0.5}
    assert candidate.dropped_blocks == ("blocks.3",)
    assert candidate.layers == {"conv1": LayerConfig(weight_bits=4, activation_bits=8)}
    assert candidate.distill.temperature == 2.0


def test_the_ends_of_a_model_keep_some_bits():
    space = SearchSpace.load({"quantisation": {"end_bits": 8}}).bind_graph(residual_graph(1, 8))
    two = space.uniform(2, 8, 0.0)
    ends = ("conv1", "blocks.0.conv2")  # the last one that is quantisable
    assert len(two.layers) > 2
    for name, config in two.layers.items():
        assert config.weight_bits == (8 if name in ends else 2)
    assert space.fingerprint != replace(space, end_bits=1).fingerprint


def test_formats_are_those_of_the_space():
    grids = {"weight_bits": [1, 4, 8], "weight_format": "codebook", "group_size": 16}
    space = SearchSpace.load({"quantisation": grids}).bind_graph(residual_graph(1, 8))
    for bits, expected in ((1, "uniform"), (4, "codebook"), (8, "uniform")):
        configs = space.uniform(bits, 8, 0.0).layers.values()
        assert {(c.weight_bits, c.weight_format, c.group_size) for c in configs} == {
            (bits, expected, 16)
        }


def test_canonical_goes_to_the_nearest_and_milder_choice():
    near = SPACE.canonical(
        Candidate(
            pruning_ratios={"blocks.0.conv1": 0.6, "blocks.1.conv1": 0.375, "conv1": 0.5},
            dropped_blocks=("blocks.0",),
            layers={
                "conv1": LayerConfig(weight_bits=7, activation_bits=6),
                "fc": LayerConfig(weight_bits=4),
            },
            distill=DistillConfig(temperature=100.0, kd_weight=1.0),
        )
    )
    assert near.pruning_ratios == {"blocks.0.conv1": 0.5, "blocks.1.conv1": 0.25}
    assert near.dropped_blocks == ()
    assert near.layers == {"conv1": LayerConfig(weight_bits=8, activation_bits=8)}
    assert near.distill == DistillConfig(temperature=8.0, kd_weight=0.95)


@pytest.mark.parametrize(
    ("candidate", "meant"),
    [
        (Candidate(pruning_ratios={"blocks.0.conv": 0.5}), "blocks.0.conv"),
        (Candidate(layers={"conv11": LayerConfig(weight_bits=8)}), "conv1"),
        (Candidate(dropped_blocks=("block.1",)), "blocks.1"),
    ],
)
def test_unknown_names_are_refused_with_the_closest(candidate, meant):
    for refuse in (SPACE.canonical, SPACE.to_params, SPACE.encode):
        with pytest.raises(InvalidInputError, match=f"did you mean '{meant}"):
            refuse(candidate)


def test_bad_parameters_are_refused():
    params = SPACE.to_params(SPACE.uniform(8, 8, 0.0))
    with pytest.raises(InvalidInputError, match="did you mean 'temperature'"):
        SPACE.from_params(params | {"temprature": 1.0})
    with pytest.raises(InvalidInputError, match=r"'kd_weight'.*got none"):
        SPACE.from_params({k: v for k, v in params.items() if k != "kd_weight"})
    for value in (4, -1, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match=r"an integer in \[0, 3\]"):
            SPACE.from_params(params | {"prune:blocks.0.conv1": value})


@pytest.mark.parametrize("row", [np.zeros(3), np.zeros((2, 21)), np.full(21, np.nan)])
def test_rows_of_another_shape_are_refused(row):
    with pytest.raises(InvalidInputError, match="'row'"):
        SPACE.decode(row)


def test_uniform_treats_all_alike():
    int8 = SPACE.uniform(8, 8, 0.0)
    assert set(int8.layers) == set(SPACE.layers)
    assert set(int8.layers.values()) == {LayerConfig(weight_bits=8, activation_bits=8)}
    assert not int8.pruning_ratios
    assert SPACE.uniform(32, 32, 0.0) == Candidate()
    strong = SPACE.uniform(3, 8, 0.5, dropped=["blocks.1"])
    assert set(strong.pruning_ratios.values()) == {0.5}
    assert len(strong.pruning_ratios) == 3
    assert strong.dropped_blocks == ("blocks.1",)


def test_uniform_takes_the_nearest_offered_bits():
    latency = SPACES[2]
    assert set(latency.uniform(4, 8, 0.0).layers.values()) == {
        LayerConfig(weight_bits=8, activation_bits=8)
    }


def test_fingerprints_tell_spaces_apart():
    assert len({space.fingerprint for space in SPACES}) == len(SPACES)
    again = SearchSpace.load("cnn").bind_graph(residual_graph(4, 32))
    assert again.fingerprint == SPACE.fingerprint
    latency = SearchSpace.load("cnn").bind_graph(
        residual_graph(4, 32), Target.named("onnxruntime-cpu"), ["latency_ms"]
    )
    assert latency.fingerprint != SPACE.fingerprint


def test_the_criterion_counts_only_where_something_is_pruned():
    space = replace(SPACE, criteria=("taylor", "l2"))
    params = space.to_params(space.uniform(8, 8, 0.5)) | {"criterion": 1}
    assert space.from_params(params).criterion == "l2"
    unpruned = {name: 0 if name.startswith("prune:") else v for name, v in params.items()}
    candidate = space.from_params(unpruned)
    assert candidate == space.from_params(unpruned | {"criterion": 0}) == space.uniform(8, 8, 0.0)
    assert space.canonical(candidate) == candidate
    assert space.to_params(candidate)["criterion"] == 0
    with pytest.raises(InvalidInputError, match="one of 'l2', 'taylor', got 'l1'"):
        space.canonical(Candidate(pruning_ratios={"blocks.0.conv1": 0.5}))


def test_samples_and_mutations_reach_every_criterion():
    space = replace(SPACE, criteria=("l1", "taylor", "fpgm"))
    sampled = {space.sample(seed).criterion for seed in range(40)}
    start = space.uniform(8, 8, 0.5)
    mutated = {space.mutate(start, seed, 0.5).criterion for seed in range(40)}
    assert sampled == mutated == {"l1", "taylor", "fpgm"}


@pytest.mark.parametrize(
    ("precisions", "bits"), [(((4, 4), (32, 32)), 32), (((4, 4), (8, 8), (32, 32)), 8)]
)
def test_the_ends_take_activation_bits_that_the_target_executes(
    precisions: tuple[tuple[int, int], ...], bits: int
) -> None:
    target = replace(Target.named("onnxruntime-cpu"), precisions=precisions)
    choices = {"weight_bits": [4], "activation_bits": [4], "end_bits": 8}
    space = SearchSpace.load({"quantisation": choices}).bind_graph(residual_graph(1, 8), target)
    four = space.uniform(4, 4, 0.0)
    check_runnable(four, target)
    assert four.layers["conv1"] == LayerConfig(weight_bits=8, activation_bits=bits)
    assert four.layers["blocks.0.conv1"] == LayerConfig(weight_bits=4, activation_bits=4)
    assert (space.fingerprint != replace(space, end_activation_bits=0).fingerprint) == (bits > 8)


def test_activation_bits_of_the_ends_are_in_the_fingerprint_only_where_they_decide_something():
    space = SearchSpace.load("cnn").bind_graph(
        residual_graph(1, 8), Target.named("onnxruntime-cpu"), ["latency_ms"]
    )
    assert space.end_activation_bits > space.end_bits
    assert space.fingerprint == replace(space, end_activation_bits=0).fingerprint


def test_ratios_of_zero_need_no_criterion():
    space = replace(SPACE, criteria=("taylor", "l2"))
    nothing = Candidate(pruning_ratios={"blocks.1.conv1": 0.0})
    assert space.canonical(nothing) == space.canonical(Candidate())
