"""The ladder on an additive problem whose best order is known."""

from collections.abc import Sequence
from typing import Any

import pytest

from autocompress.controller.ladder import (
    LARGEST_DEVIATION,
    MOST_LOOKS,
    Move,
    Rung,
    _Damages,
    build_ladder,
)
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


def test_a_step_takes_no_move_that_was_not_tried_at_its_beginning() -> None:
    space = SearchSpace.load({"pruning": {"exclude": ["*"]}, "quantisation": {"exclude": ["*"]}})
    bound = space.bind_graph(residual_graph(blocks=9))
    crowd = {f"blocks.{number}" for number in range(1, 7)}  # harmless, but for two of them

    def deviation(candidate: Candidate) -> float:
        dropped = set(candidate.dropped_blocks)
        return 0.01 * len(dropped) + 1.2 * max(0, len(dropped & crowd) - 1)

    harm = {"blocks.7": 0.05, "blocks.8": 0.06}

    def all_deviations(candidate: Candidate) -> float:
        return deviation(candidate) + sum(harm.get(name, 0.0) for name in candidate.dropped_blocks)

    rungs = build_ladder(
        bound,
        bound.uniform(8, 8, 0.0),
        all_deviations,
        lambda many: [20.0 - len(candidate.dropped_blocks) for candidate in many],
    )
    second, third = rungs[2].candidate.dropped_blocks, rungs[3].candidate.dropped_blocks
    assert set(second) - crowd == {"blocks.7"}
    assert set(third) - crowd == {"blocks.7", "blocks.8"}


def test_what_a_further_move_adds_is_guessed_until_it_looks_best() -> None:
    looks: list[Candidate] = []

    def deviation(candidate: Candidate) -> float:
        looks.append(candidate)
        return sum(ratio**2 for ratio in candidate.pruning_ratios.values())

    damages = _Damages(deviation, lambda: False)
    first, second = (Move(kind="prune", target="a", value=value) for value in (0.25, 0.5))
    other = Move(kind="prune", target="b", value=0.25)
    start = Candidate()
    damages.begin({first: 0.1, other: 0.1}, Rung(candidate=start, deviation=0.0, cost=1.0))
    assert damages.take(first) == pytest.approx(0.0625)
    assert len(looks) == 2
    pruned = first.apply(start)
    damages.begin({second: 0.1, other: 0.02}, Rung(candidate=pruned, deviation=0.0625, cost=0.9))
    assert len(looks) == 2  # four times 0.0625, less what is there already
    assert damages.least(pruned, anew=False) == second
    assert damages.least(pruned, anew=True) == second
    assert looks[2:] == [second.apply(pruned)]
    assert damages.take(second) == pytest.approx(0.1875)
    assert damages.least(second.apply(pruned), anew=True) == other
    assert damages.least(pruned, anew=False) == other
    damages.take(other)
    assert damages.least(pruned, anew=True) is None


def test_moves_of_unequal_ties_are_guessed_by_all_that_they_change() -> None:
    def deviation(candidate: Candidate) -> float:
        return 5.0 * len(candidate.pruning_ratios)

    damages = _Damages(deviation, lambda: False)
    moves = [
        Move(kind="prune", target="a", value=first, tied=(("b", second),))
        for first, second in ((0.0, 0.25), (0.5, 0.5), (0.5, 0.75))
    ]
    candidate = Candidate()
    for move, expected in zip(moves, (0.0625, 0.5, 0.8125), strict=True):
        assert move.severity == pytest.approx(expected)
        damages.begin({move: 0.1}, Rung(candidate=candidate, deviation=0.0, cost=1.0))
        assert damages.least(candidate, anew=False) == move
        assert damages.take(move) > 1.0
        candidate = move.apply(candidate)


def test_a_step_looks_at_a_limited_number_of_moves_anew() -> None:
    looks: list[Candidate] = []

    def worse_and_worse(candidate: Candidate) -> float:
        looks.append(candidate)
        return float(len(looks))

    damages, start = _Damages(worse_and_worse, lambda: False), Candidate()
    savings = {Move(kind="drop", target=f"block {number}"): 0.1 for number in range(40)}
    base = Rung(candidate=start, deviation=0.0, cost=1.0)
    damages.begin(savings, base)
    assert len(looks) == 40
    damages.begin(savings, base)
    assert damages.least(start, anew=True) in savings
    assert len(looks) == 40 + MOST_LOOKS


def test_narrower_grids_add_what_their_squared_steps_say() -> None:
    six, four = (Move(kind="narrow", target="a", value=bits) for bits in (6, 4))
    assert four.severity == pytest.approx(16 * six.severity)
