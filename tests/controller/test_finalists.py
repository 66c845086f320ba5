"""The choice of finalists on hand-made trials."""

import numpy as np
import pytest

from autocompress.controller.finalists import Finalist, choose_finalists
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation

# accuracy, latency; the original has 0.9 at 1.0
POINTS = [(0.90, 1.0), (0.90, 0.5), (0.88, 0.3), (0.85, 0.4), (0.80, 0.2)]


def _choose(
    violations: list[float],
    count: int,
    members: tuple[int, ...] = (),
    gaps: tuple[float, ...] = (0.0, 0.0, 0.3, 0.4, 0.5),
) -> list[Finalist]:
    evaluations = [
        Evaluation(slot=i, candidate=Candidate(), origin="x") for i in range(len(POINTS))
    ]
    values = [{"accuracy": a, "latency_ms": t, "macs": t} for a, t in POINTS]
    losses = np.array([[1 - a, t] for a, t in POINTS])
    return choose_finalists(
        evaluations,
        values,
        losses,
        np.array(violations),
        np.array([0.3, 1.1]),
        gaps,
        0.9,
        count,
        members,
    )


def _slots(finalists: list[Finalist]) -> list[int]:
    return [finalist.evaluation.slot for finalist in finalists]


def test_dominated_candidates_are_not_chosen() -> None:
    chosen = _choose([0.0] * 5, 5, members=(0, 1))
    assert _slots(chosen) == [2, 4]  # from the least compressed on; 3 is dominated by 2


def test_time_goes_where_accuracy_is_missing() -> None:
    chosen = _choose([0.0] * 5, 5)
    shares = {finalist.evaluation.slot: finalist.share for finalist in chosen}
    assert shares[1] == 0.0
    assert shares[4] > shares[2] > 0.0
    assert sum(shares.values()) == pytest.approx(1.0)


def test_what_is_predicted_to_recover_has_to_be_trained_for_that() -> None:
    chosen = _choose([0.0] * 5, 5, gaps=(0.0, 0.1, 0.3, 0.4, 0.5))
    assert all(f.share > 0.0 for f in chosen if f.evaluation.slot != 0)


def test_infeasible_candidates_do_not_displace_feasible_ones() -> None:
    assert _slots(_choose([0.0, 0.0, 0.5, 0.0, 0.5], 5)) == [1, 3]


def test_members_that_miss_a_constraint_win_nothing() -> None:
    feasible = [0.5, 0.5, 0.0, 0.0, 0.0]
    assert _slots(_choose(feasible, 1)) == _slots(_choose(feasible, 1, members=(0, 1))) == [2]
    missed = _choose([0.0, 0.0, 0.1, 0.0, 0.0], 1, members=(2,), gaps=(0.1,) * 5)
    assert _slots(missed) == [1], "and are not chosen again"
    among = _choose([0.5, 0.5, 0.5, 0.0, 0.5], 5, members=(0, 1, 2))
    assert _slots(among) == [3], "which a member dominates that may not be kept"


def test_the_nearest_are_chosen_where_only_baselines_are_feasible() -> None:
    violations = [0.0, 0.0, 0.3, 0.2, 0.1]
    points = _choose(violations, 2, members=(0, 1))
    assert set(_slots(points)) == {3, 4}


def test_the_nearest_are_chosen_where_nothing_is_feasible() -> None:
    assert set(_slots(_choose([0.5, 0.4, 0.3, 0.2, 0.1], 2))) == {3, 4}


def test_those_that_nearly_meet_the_limits_follow_the_feasible_ones() -> None:
    assert _slots(_choose([0.0, 0.0, 0.004, 0.3, 0.0], 5, members=(0,))) == [1, 2, 4]
    assert _slots(_choose([0.0, 0.0, 0.004, 0.3, 0.0], 2, members=(0,))) == [1, 4]
    assert _slots(_choose([0.0, 0.0, 0.3, 0.004, 0.3], 3, members=(0, 1))) == [3, 2, 4]


def test_near_ones_that_a_feasible_one_beats_are_not_chosen() -> None:
    assert _slots(_choose([0.0, 0.0, 0.0, 0.004, 0.3], 5, members=(0,))) == [1, 2]
    assert _slots(_choose([0.0, 0.0, 0.0, 0.004, 0.3], 5, members=(0, 2))) == [1]
    assert _slots(_choose([0.0, 0.0, 0.3, 0.004, 0.3], 5, members=(0,))) == [1, 3]
