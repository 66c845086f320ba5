"""The first designs: baselines, promoted rungs, no repetition."""

import pytest

from autocompress.controller.designs import (
    counts,
    first_designs,
    given_designs,
    ladder_start,
    plain_int8,
    sobol_points,
    unmodified,
    with_earlier,
)
from autocompress.controller.ladder import Rung
from autocompress.core.candidate import Candidate
from autocompress.core.target import Target
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph


@pytest.fixture
def space() -> BoundSpace:
    return SearchSpace.load("cnn").bind_graph(
        residual_graph(), Target.named("onnxruntime-cpu"), ["latency_ms", "size_bytes"]
    )


def _ladder(space: BoundSpace) -> list[Rung]:
    candidates = [space.uniform(8, 8, ratio) for ratio in (0.0, 0.25, 0.5)]
    dropped = space.uniform(8, 8, 0.5, dropped=space.blocks)
    return [
        Rung(candidate=candidate, deviation=0.1 * index, cost=1.0 - 0.2 * index)
        for index, candidate in enumerate([*candidates, dropped])
    ]


def test_baselines_come_first_and_rungs_are_promoted(space: BoundSpace) -> None:
    designs = first_designs(space, {"latency_ms": _ladder(space)})
    assert designs[0].candidate == unmodified(space) == Candidate(distill=_distill(space))
    assert designs[1].candidate == plain_int8(space)
    assert designs[1].origin == "plain int8"
    assert [design.promote for design in designs[:3]] == [False, False, True]
    assert designs[2].origin == "latency_ms ladder"


def test_rungs_far_over_a_limit_are_no_designs(space: BoundSpace) -> None:
    ladder = _ladder(space)  # costs 1, 0.8, 0.6, 0.4
    designs = first_designs(space, {"latency_ms": ladder}, {"latency_ms": 0.6})
    rungs = [d.candidate for d in designs if d.origin == "latency_ms ladder"]
    assert ladder[1].candidate not in rungs
    assert ladder[2].candidate in rungs
    assert designs[2].candidate == ladder[2].candidate  # nearest to the limit, trained first


def test_no_candidate_twice(space: BoundSpace) -> None:
    ladder = _ladder(space)
    designs = first_designs(space, {"latency_ms": ladder, "size_bytes": ladder})
    texts = [design.candidate.to_json() for design in designs]
    assert len(set(texts)) == len(texts)


def test_narrow_bits_are_among_the_designs_where_size_counts(space: BoundSpace) -> None:
    designs = first_designs(space, {"size_bytes": []})
    bits = {config.weight_bits for d in designs for config in d.candidate.layers.values()}
    assert {2, 3, 4, 5, 6, 8} <= bits


@pytest.mark.parametrize(
    "quantisation",
    [{"exclude": ["conv1"]}, {"weight_bits": [4]}, {"weight_bits": [32], "activation_bits": [32]}],
)
def test_what_is_not_int8_everywhere_is_not_called_so(quantisation: dict[str, object]) -> None:
    preset = SearchSpace.load("cnn").model_dump()
    preset["quantisation"] |= quantisation
    graph = residual_graph()
    narrower = SearchSpace.load(preset).bind_graph(graph, None, ["latency_ms", "size_bytes"])
    designs = first_designs(narrower, {"size_bytes": []})
    assert "plain int8" not in {design.origin for design in designs}
    plain = plain_int8(narrower)
    assert set(plain.layers) == {layer.name for layer in graph.layers if layer.quantisable}
    assert {c.weight_bits for c in plain.layers.values()} == {8}


def test_channels_of_all_groups_compete_in_global_designs(space: BoundSpace) -> None:
    widths = {name: space.graph.group(name).channels for name in space.pruning_choices}
    first = next(iter(widths))
    even = {name: [1.0] * channels for name, channels in widths.items()}
    steep = even | {first: [0.01] * (widths[first] // 2) + [1.0] * (widths[first] // 2)}
    unranked = first_designs(space, {"latency_ms": []})
    designs = first_designs(space, {"latency_ms": []}, scores={"l1": steep})
    assert not [design for design in unranked if design.origin.startswith("global")]
    ranked = [d.candidate for d in designs if d.origin == "global l1 pruning"]
    assert len(ranked) == 2
    for candidate, fraction in zip(ranked, (0.25, 0.5), strict=True):
        assert space.canonical(candidate) == candidate
        assert candidate.layers == plain_int8(space).layers
        removed = sum(candidate.pruning_ratios.get(n, 0.0) * c for n, c in widths.items())
        assert abs(removed - fraction * sum(widths.values())) <= 8
        others = [candidate.pruning_ratios.get(name, 0.0) for name in widths if name != first]
        assert candidate.pruning_ratios[first] > min(others)


def _distill(space: BoundSpace) -> object:
    return unmodified(space).distill


def test_given_candidates_follow_the_baselines_once(space: BoundSpace) -> None:
    half = space.uniform(8, 8, 0.5)
    designs = given_designs(space, [half, plain_int8(space), half])
    assert [design.candidate for design in designs] == [unmodified(space), plain_int8(space), half]
    assert [design.origin for design in designs] == ["unmodified", "plain int8", "given"]


def test_there_are_more_designs_where_there_are_more_trials(space: BoundSpace) -> None:
    assert counts(4) == (2, 0, 0)
    assert counts(200) == (12, 24, 10)
    assert sum(counts(None)) < sum(counts(200))
    ladder = _ladder(space)
    few = first_designs(space, {"latency_ms": ladder}, rungs=2)
    assert sum(design.origin == "latency_ms ladder" for design in few) == 2
    given = {"allocation": [space.uniform(8, 8, 0.7)]}
    designs = first_designs(space, {"latency_ms": ladder}, others=given)
    assert [d.candidate for d in designs if d.origin == "allocation"] == given["allocation"]


def test_sobol_points_spread_from_mild_to_strong(space: BoundSpace) -> None:
    points = sobol_points(space, 12, seed=0)
    assert points == sobol_points(space, 12, seed=0)
    assert points[:3] == sobol_points(space, 3, seed=0)
    assert len(set(points)) == 12
    assert len({len(point.dropped_blocks) for point in points}) >= 2
    means = [sum(p.pruning_ratios.values()) / len(space.pruning_choices) for p in points]
    assert min(means) < 0.1 < 0.3 < max(means)
    start = ladder_start(space)
    for point in points:  # nothing is milder than plain int8
        bits = {config.weight_bits for config in point.layers.values()}
        assert max(bits) <= max(config.weight_bits for config in start.layers.values())
    assert sobol_points(space, 0, seed=0) == []


def test_candidates_of_earlier_studies_come_after_baselines_and_given_ones(
    space: BoundSpace,
) -> None:
    designs = first_designs(space, {"latency_ms": _ladder(space)})
    known, new = designs[3].candidate, space.uniform(4, 8, 0.3)
    found = with_earlier(space, designs, [known, new])
    assert [d.candidate for d in found[:3]] == [*(d.candidate for d in designs[:2]), new]
    assert found[2].origin == "earlier study"
    assert found[3:] == designs[2:]
    given = given_designs(space, [known])
    assert [d.candidate for d in with_earlier(space, given, [new])] == [
        *(design.candidate for design in given),
        new,
    ]
