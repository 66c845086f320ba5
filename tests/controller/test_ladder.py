"""The ladder on an additive problem whose best order is known."""

from collections.abc import Sequence
from typing import Any

import pytest

from autocompress.controller.ladder import LARGEST_DEVIATION, Move, build_ladder
from autocompress.core.candidate import Candidate
from autocompress.core.target import Target
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

HARM = {"drop": 0.3, "prune": 0.05, "narrow": 0.01}


@pytest.fixture
def space() -> BoundSpace:
    return SearchSpace.load("cnn").bind_graph(
        residual_graph(), Target.named("onnxruntime-cpu"), ["latency_ms"]
    )


def _costs(candidates: Sequence[Candidate]) -> list[float]:
    return [_cost(candidate) for candidate in candidates]


def _cost(candidate: Candidate) -> float:
    return 10.0 - 3.0 * len(candidate.dropped_blocks) - sum(candidate.pruning_ratios.values())


def _deviation(candidate: Candidate) -> float:
    ratios = candidate.pruning_ratios.values()
    return 0.1 + 0.3 * len(candidate.dropped_blocks) + 0.5 * sum(ratios)


def test_costs_fall_and_every_rung_is_in_the_space(space: BoundSpace) -> None:
    rungs = build_ladder(space, space.uniform(8, 8, 0.0), _deviation, _costs)
    costs = [rung.cost for rung in rungs]
    assert len(rungs) > 2
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == 1.0
    for rung in rungs:
        assert space.canonical(rung.candidate) == rung.candidate
        assert rung.cost == pytest.approx(_cost(rung.candidate) / 10.0)
        assert rung.deviation == pytest.approx(_deviation(rung.candidate))


def test_the_move_of_least_damage_per_saving_comes_first(space: BoundSpace) -> None:
    rungs = build_ladder(space, space.uniform(8, 8, 0.0), _deviation, _costs)
    assert rungs[1].candidate.dropped_blocks  # 0.1 nats per unit of cost, pruning 0.5
    assert not rungs[1].candidate.pruning_ratios


def _losing(candidate: Candidate) -> float:
    """Lose all predictions with the second move; one more then does nothing."""
    return min(2.5, 3.0 * _deviation(candidate))


def test_a_ladder_ends_where_predictions_are_lost(space: BoundSpace) -> None:
    first = build_ladder(space, space.uniform(8, 8, 0.0), _losing, _costs)
    assert first[-1].deviation >= LARGEST_DEVIATION > first[-2].deviation
    assert first[-1].cost > 0.3


def test_a_ladder_goes_on_down_to_a_limit_by_what_moves_do_alone(space: BoundSpace) -> None:
    first = build_ladder(space, space.uniform(8, 8, 0.0), _losing, _costs)
    needed = first[-1].cost - 0.05
    rungs = build_ladder(space, space.uniform(8, 8, 0.0), _losing, _costs, needed=needed)
    assert rungs[: len(first)] == first
    assert rungs[-1].cost <= needed < rungs[-2].cost
    before, after = rungs[len(first) - 1 : len(first) + 1]
    alone = 3.0 * (_deviation(after.candidate) - _deviation(before.candidate))
    assert after.deviation == pytest.approx(before.deviation + alone)


def test_without_time_the_known_damages_still_make_a_ladder(space: BoundSpace) -> None:
    looks = 0

    def counted(candidate: Candidate) -> float:
        nonlocal looks
        looks += 1
        return _deviation(candidate)

    rungs = build_ladder(
        space, space.uniform(8, 8, 0.0), counted, _costs, enough=lambda: looks > len(space.blocks)
    )
    assert len(rungs) > 1
    assert looks <= len(space.blocks) + 1


def test_moves_that_save_nothing_are_not_made(space: BoundSpace) -> None:
    rungs = build_ladder(
        space, space.uniform(8, 8, 0.0), _deviation, lambda candidates: [1.0] * len(candidates)
    )
    assert len(rungs) == 1


def test_a_move_changes_one_thing() -> None:
    start = Candidate(pruning_ratios={"a": 0.25})
    assert Move(kind="drop", target="b").apply(start).dropped_blocks == ("b",)
    assert Move(kind="prune", target="a", value=0.5).apply(start).pruning_ratios == {"a": 0.5}
    assert Move(kind="narrow", target="a", value=4).apply(start).layer("a").weight_bits == 4
    assert start == Candidate(pruning_ratios={"a": 0.25})


def test_what_is_tied_moves_together() -> None:
    space = SearchSpace.load(
        {
            "pruning": {"ties": [["*"]]},
            "quantisation": {"ties": [["*.conv1", "*.conv2"]]},
            "blocks": {"drop": False},
        }
    ).bind_graph(residual_graph())

    def bits(candidate: Candidate) -> float:
        return sum(config.weight_bits for config in candidate.layers.values())

    rungs = build_ladder(
        space,
        space.uniform(8, 8, 0.0),
        _deviation,
        lambda many: [_cost(c) + bits(c) / 100 for c in many],
    )
    assert len(rungs) > 3
    for rung in rungs:
        assert space.canonical(rung.candidate) == rung.candidate
        assert len(set(rung.candidate.pruning_ratios.values())) <= 1
        assert len(rung.candidate.pruning_ratios) in (0, 3)
    assert rungs[-1].candidate.pruning_ratios
    move = Move(kind="prune", target="a", value=0.5, tied=(("b", 0.25),))
    assert move.apply(Candidate()).pruning_ratios == {"a": 0.5, "b": 0.25}


def _bits(candidate: Candidate) -> float:
    return sum(config.weight_bits for config in candidate.layers.values())


@pytest.mark.parametrize(
    "spec",
    [
        {"pruning": {"criteria": ["taylor", "l1"]}},
        {"quantisation": {"weight_format": "codebook", "group_size": 8}},
        {"quantisation": {"ties": [["*"]], "end_bits": 8}},
    ],
)
def test_every_rung_is_a_candidate_of_its_space(spec: dict[str, Any]) -> None:
    space = SearchSpace.load({**spec, "blocks": {"drop": False}}).bind_graph(residual_graph())
    rungs = build_ladder(
        space,
        space.uniform(8, 8, 0.0),
        _deviation,
        lambda many: [_cost(c) + _bits(c) / 100 for c in many],
    )
    assert len(rungs) > 3
    for rung in rungs:
        assert space.from_params(space.to_params(rung.candidate)) == rung.candidate
    if "pruning" in spec:
        assert rungs[-1].candidate.criterion == "taylor"
    else:
        assert any(2 <= c.weight_bits < 8 for c in rungs[-1].candidate.layers.values())
