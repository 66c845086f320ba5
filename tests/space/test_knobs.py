import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPARSE = {"sparsity": {"levels": [0.5, "2:4", 0.75]}}
GLOBAL = {"sparsity": {"levels": [0.5, 0.9], "ties": [["*"]]}, "quantisation": {"ties": [["*"]]}}
PAIRED = {
    "pruning": {"ties": [["blocks.0.*", "blocks.1.*", "blocks.2.*"]], "round_to": 4},
    "quantisation": {"ties": [["*.conv1", "*.conv2"], ["conv1"]]},
    **SPARSE,
}


def bound(content: dict[str, object]) -> BoundSpace:
    return SearchSpace.load(content).bind_graph(residual_graph(4, 32))


SINGLE = {"sparsity": {"levels": [0.5], "ties": [["*"]]}, "quantisation": {"weight_bits": [1, 8]}}
SPACES = [bound(content) for content in (SPARSE, GLOBAL, PAIRED, SINGLE)]


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 10**6))
def test_decode_inverts_encode_where_choices_are_tied(space: BoundSpace, seed: int) -> None:
    rng = random.Random(seed)
    params = {
        p.name: rng.randint(int(p.low), int(p.high))
        if p.kind == "int"
        else rng.uniform(p.low, p.high)
        for p in space.parameters
    }
    wild = Candidate(
        pruning_ratios={name: rng.random() for name in space.pruning_choices},
        dropped_blocks=tuple(name for name in space.blocks if rng.random() < 0.3),
        layers={
            name: LayerConfig(
                weight_bits=rng.choice([1, 2, 4, 8, 32]), sparsity=rng.choice([0.0, 0.2, 0.5, 0.8])
            )
            for name in space.sparse_layers
        },
    )
    for candidate in (space.from_params(params), space.sample(seed), space.canonical(wild)):
        row = space.encode(candidate)
        assert row.shape == (1, len(space.parameters))
        assert space.decode(row) == candidate == space.canonical(candidate)
        assert space.from_params(space.to_params(candidate)) == candidate
    near = space.mutate(space.canonical(wild), seed, 0.1)
    assert space.canonical(near) == near


def test_tied_groups_share_a_ratio_and_one_parameter() -> None:
    space = SPACES[2]
    prune = [p.name for p in space.parameters if p.name.startswith("prune:")]
    assert prune == ["prune:blocks.0.conv1", "prune:blocks.3.conv1"]
    params = space.to_params(space.uniform(32, 32, 0.0)) | {"prune:blocks.0.conv1": 2}
    ratios = space.from_params(params).pruning_ratios
    assert ratios == {f"blocks.{i}.conv1": 0.5 for i in range(3)}


def test_tied_layers_share_their_bits() -> None:
    space = SPACES[2]
    params = space.to_params(space.uniform(8, 8, 0.0))
    params["precision:blocks.1.conv1"] = space.layer_precisions.index((4, 8))
    layers = space.from_params(params).layers
    four = [name for name, config in layers.items() if config.weight_bits == 4]
    assert four == ["blocks.1.conv1", "blocks.1.conv2"]


def test_what_is_tied_goes_where_most_of_it_wants_to_be() -> None:
    space = SPACES[2]
    ratios = {"blocks.0.conv1": 0.5, "blocks.1.conv1": 0.5, "blocks.2.conv1": 0.0}
    near = space.canonical(Candidate(pruning_ratios=ratios))
    assert set(near.pruning_ratios.values()) == {0.5}
    assert len(near.pruning_ratios) == 3
    dropped = space.canonical(Candidate(pruning_ratios=ratios, dropped_blocks=("blocks.1",)))
    assert dropped.pruning_ratios == {}  # of the two that stand, one wants none: the milder


def test_groups_of_other_widths_come_as_near_as_they_can() -> None:
    space = bound({"pruning": {"ties": [["*"]]}})
    choices = {"blocks.0.conv1": (0.0, 0.25, 0.5), "blocks.1.conv1": (0.0, 1 / 3, 2 / 3)}
    uneven = BoundSpace(
        **{
            **{name: getattr(space, name) for name in space.__dataclass_fields__},
            "pruning_choices": choices,
            "pruning_ties": (tuple(choices),),
        }
    )
    levels = uneven.pruning_knobs[0].levels
    assert levels == ((0.0, 0.0), (0.25, 1 / 3), (0.5, 1 / 3), (0.5, 2 / 3))


def test_one_level_for_all_layers() -> None:
    space = SPACES[1]
    names = [p.name for p in space.parameters if p.name.startswith(("sparsity", "precision"))]
    assert names == ["precision:conv1", "sparsity:conv1"]
    params = space.to_params(space.uniform(32, 32, 0.0)) | {"sparsity:conv1": 2}
    layers = space.from_params(params).layers
    assert set(layers) == set(space.sparse_layers)
    assert set(layers.values()) == {LayerConfig(sparsity=0.9)}


def test_sparsity_is_off_unless_asked_for_and_where_no_size_counts() -> None:
    plain = bound({})
    assert plain.sparse_layers == ()
    assert not any(p.name.startswith("sparsity") for p in plain.parameters)
    graph = residual_graph(4, 32)
    space = SearchSpace.load(SPARSE)
    assert space.bind_graph(graph, costs=["latency_ms"]).sparse_layers == ()
    size = space.bind_graph(graph, costs=["size_bytes"])
    assert len(size.sparse_layers) == 9
    assert size.sparsity_levels == (
        (0.0, "unstructured"),
        (0.5, "2:4"),
        (0.5, "unstructured"),
        (0.75, "unstructured"),
    )


def test_patterns_survive_the_round_trip() -> None:
    candidate = Candidate(
        layers={
            "conv1": LayerConfig(sparsity=0.5, sparsity_pattern="2:4"),
            "blocks.1.conv2": LayerConfig(sparsity=0.5, weight_bits=4, activation_bits=8),
        }
    )
    space = SPACES[0]
    assert space.decode(space.encode(candidate)) == candidate


def test_ties_and_levels_are_part_of_the_fingerprint() -> None:
    prints = {space.fingerprint for space in (*SPACES, bound({}))}
    assert len(prints) == len(SPACES) + 1
