from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.space.choices import achieved_ratios
from autocompress.transform.allocation import LEAST_KEPT, allocate_globally, global_ratios
from autocompress.transform.ranks import Ranks
from seasoned import seasoned

ALL_RATIOS = tuple(step / 16 for step in range(16))

Groups = dict[str, list[float]]

groups = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.floats(0.0, 100.0, allow_subnormal=False), min_size=2, max_size=40),
    min_size=1,
)


def _choices(scores: Groups, round_to: int) -> dict[str, tuple[float, ...]]:
    return {
        name: achieved_ratios(len(values), ALL_RATIOS, round_to=round_to)
        for name, values in scores.items()
    }


def _removed(scores: Groups, ratios: dict[str, float]) -> dict[str, int]:
    return {name: round(ratios[name] * len(values)) for name, values in scores.items()}


@given(scores=groups, fraction=st.floats(0.0, 0.99), round_to=st.sampled_from([1, 2, 8]))
def test_no_group_collapses_and_channels_are_rounded(
    scores: Groups, fraction: float, round_to: int
) -> None:
    choices = _choices(scores, round_to)
    ratios = global_ratios(scores, choices, fraction)
    for name, values in scores.items():
        assert ratios[name] in choices[name]
        kept = len(values) - round(ratios[name] * len(values))
        assert kept >= LEAST_KEPT * len(values)
        step = round_to if len(values) >= 2 * round_to else max(1, len(values) // 8)
        assert kept >= min(step, len(values))
        assert kept == len(values) or kept % step == 0


@given(scores=groups, fraction=st.floats(0.0, 0.99), round_to=st.sampled_from([1, 2, 8]))
def test_the_fraction_is_met_within_one_step(
    scores: Groups, fraction: float, round_to: int
) -> None:
    choices = _choices(scores, round_to)
    total = sum(map(len, scores.values()))
    removed = sum(_removed(scores, global_ratios(scores, choices, fraction)).values())
    most = sum(_removed(scores, global_ratios(scores, choices, 0.999)).values())
    widest = max(
        (
            round((b - a) * len(scores[name]))
            for name, found in choices.items()
            for a, b in pairwise(found)
        ),
        default=0,
    )
    wanted = fraction * total
    assert removed <= wanted + widest / 2 + 1e-6
    assert removed >= min(wanted, most) - widest / 2 - 1e-6


@given(scores=groups, fractions=st.lists(st.floats(0.0, 0.99), min_size=2, max_size=2))
def test_a_larger_fraction_never_removes_less_of_a_group(
    scores: Groups, fractions: list[float]
) -> None:
    choices = _choices(scores, 2)
    mild, strong = (global_ratios(scores, choices, fraction) for fraction in sorted(fractions))
    assert all(mild[name] <= strong[name] for name in scores)


@given(scores=groups, fraction=st.floats(0.0, 0.99), factor=st.sampled_from([0.25, 2.0, 64.0]))
def test_the_scale_of_a_group_does_not_matter(
    scores: Groups, fraction: float, factor: float
) -> None:
    choices = _choices(scores, 1)
    scaled = {**scores, min(scores): [factor * value for value in scores[min(scores)]]}
    assert global_ratios(scaled, choices, fraction) == global_ratios(scores, choices, fraction)


def test_the_least_important_channels_of_all_groups_go() -> None:
    scores = {"even": [1.0] * 8, "steep": [0.01, 0.01, 0.01, 0.01, 2.0, 2.0, 2.0, 2.0]}
    choices = _choices(scores, 1)
    assert global_ratios(scores, choices, 0.25) == {"even": 0.0, "steep": 0.5}
    beyond = global_ratios(scores, choices, 0.5)
    assert beyond["steep"] == 0.5
    assert beyond["even"] == 0.5


def test_the_guard_holds_where_one_group_is_worthless() -> None:
    scores = {"dead": [0.0] * 20, "live": [1.0] * 20}
    ratios = global_ratios(scores, _choices(scores, 1), 0.6, least_kept=0.25)
    assert ratios["dead"] == 0.75
    assert ratios["live"] == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("scores", "fraction", "message"),
    [
        ({}, 0.5, "group 'a'.*one per channel, got none"),
        ({"a": [1.0, float("nan")]}, 0.5, "finite numbers"),
        ({"a": [1.0, -1.0]}, 0.5, "finite numbers >= 0.*got -1 to 1"),
        ({"a": np.ones(2)}, 1.0, r"a fraction in \[0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused(
    scores: dict[str, list[float]], fraction: float, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        global_ratios(scores, {"a": (0.0, 0.5)}, fraction)


def test_one_ratio_for_a_whole_model_is_spread_by_one_ranking() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    ranks = Ranks(model, graph)
    start = Candidate(criterion="l2", dropped_blocks=("layer1.1",))
    found = allocate_globally(ranks, start, 0.4, unit=1)
    assert found.dropped_blocks == start.dropped_blocks
    groups = [g for g in graph.groups if g.prunable and not g.name.startswith("layer1.1.")]
    removed = sum(round(found.pruning_ratios[g.name] * g.channels) for g in groups)
    assert removed == pytest.approx(0.4 * sum(g.channels for g in groups), abs=1)
    assert len(set(found.pruning_ratios.values())) > 1
    assert all(ratio <= 1.0 - LEAST_KEPT for ratio in found.pruning_ratios.values())
    coarse = allocate_globally(ranks, start, 0.4, unit=8)
    kept = [round((1 - coarse.pruning_ratios[g.name]) * g.channels) for g in groups]
    assert {k % 8 for k, g in zip(kept, groups, strict=True) if g.channels >= 16} == {0}


def test_two_ways_to_say_how_much_goes_are_refused() -> None:
    model, inputs = seasoned("PlainNet")
    ranks = Ranks(model, trace(model, inputs))
    with pytest.raises(InvalidInputError, match=r"without pruning_ratios.*ratios for conv1"):
        allocate_globally(ranks, Candidate(pruning_ratios={"conv1": 0.5}), 0.5, unit=8)
    with pytest.raises(InvalidInputError, match=r"a fraction in \[0, 1\)"):
        allocate_globally(ranks, Candidate(), 1.0, unit=8)
