"""Volumes of fronts that are chosen on val and judged on test, against areas counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from autocompress.core.comparison import (
    Point,
    chosen,
    front_volume,
    joined,
    mean_difference,
    volumes,
)
from autocompress.errors import InvalidInputError


def point(val: float, test: float, ms: float, method: str = "a", seed: int = 0) -> Point:
    return Point(
        method=method,
        seed=seed,
        name="0001",
        path="a/0/front/0001/model.onnx",
        val_accuracy=val,
        accuracy=test,
        latency_ms=ms,
        latency_ci95_ms=(0.9 * ms, 1.1 * ms),
        reference_ms=2.0,
        file_bytes=1000,
    )


BASELINE = point(0.9, 0.9, 2.0, method="original")


def test_a_file_beats_another_beyond_the_intervals_of_their_ratios() -> None:
    slow, quick = point(0.9, 0.9, 2.0), point(0.9, 0.9, 1.9)
    assert not quick.beats(slow)  # the latencies' own intervals overlap
    assert quick.noisy
    exact = [
        replace(p, ratio_ci95=(0.99 * p.latency_ratio, p.latency_ratio)) for p in (slow, quick)
    ]
    assert exact[1].beats(exact[0])
    assert not exact[0].beats(exact[1])
    assert not exact[1].noisy
    for one in (slow, exact[0]):
        assert Point.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_points_of_older_files_have_no_interval_of_the_ratio() -> None:
    record = point(0.9, 0.9, 2.0).to_json()
    del record["ratio_ci95"]
    assert Point.from_json(record).ratio_interval == pytest.approx((0.9, 1.1))


def test_val_chooses_and_test_does_not() -> None:
    lucky = point(0.80, 0.99, 1.5)  # the best on test, beaten on val
    kept = [point(0.85, 0.84, 1.0), point(0.90, 0.89, 1.4)]
    assert chosen([kept[1], lucky, kept[0]]) == kept
    assert chosen([]) == []


def test_a_front_is_worth_its_area_in_units_of_the_ideal() -> None:
    # Above 0.85 and left of 2.2 ms: 0.04 x (2.2 - 1.4) and 0.02 x (1.4 - 1.0), over 0.05 x 2.2.
    front = [point(0.88, 0.87, 1.0), point(0.90, 0.89, 1.4)]
    assert front_volume(front, BASELINE) == pytest.approx((0.04 * 0.8 + 0.02 * 0.4) / (0.05 * 2.2))
    assert front_volume([BASELINE], BASELINE) == pytest.approx(0.1 / 1.1)


@pytest.mark.parametrize("points", [[], [point(0.7, 0.84, 1.0)], [point(0.9, 0.9, 2.3)]])
def test_what_lies_beyond_the_reference_is_worth_nothing(points: list[Point]) -> None:
    assert front_volume(points, BASELINE) == 0.0


def test_volumes_are_listed_by_method_and_seed() -> None:
    points = [point(0.9, 0.9, 1.1, seed=1), point(0.9, 0.9, 2.0), point(0.9, 0.9, 1.0, "b")]
    assert volumes(points, BASELINE) == {
        "a": {0: pytest.approx(0.1 / 1.1), 1: pytest.approx(0.5)},
        "b": {0: pytest.approx(1.2 / 2.2)},
    }


def test_the_original_and_plain_int8_count_for_every_method() -> None:
    int8, poor = point(0.89, 0.89, 1.5, "int8"), point(0.88, 0.84, 1.0)
    found = volumes([int8, poor, replace(poor, seed=1)], BASELINE)
    whole = 0.05 * 0.2 + 0.04 * 0.5  # beside the original from 1.5 to 2 ms, and it to 2.2 ms
    assert found["int8"] == {0: pytest.approx(whole / (0.05 * 2.2))}
    assert found["a"] == {0: pytest.approx(whole / (0.05 * 2.2)), 1: pytest.approx(0.1 / 1.1)}
    lucky = replace(poor, val_accuracy=0.9)  # `val` prefers it to both
    assert volumes([int8, lucky], BASELINE)["a"] == {0: 0.0}


def test_runs_on_other_days_are_compared_by_the_ratio_to_the_original() -> None:
    slow_host = replace(BASELINE, latency_ms=4.0, reference_ms=4.0)
    again = replace(point(0.9, 0.89, 3.0), reference_ms=4.0)  # 0.75 of the original
    other = point(0.9, 0.87, 1.8, method="b")  # 0.9 of it
    stale = point(0.5, 0.5, 0.1)
    points = joined([BASELINE, stale, other], [slow_host, again])
    assert points == [slow_host, again, other]
    assert again.beats(other) is False  # 3.3 of 4 ms against 1.62 of 2: within the intervals
    assert replace(again, latency_ci95_ms=(2.9, 3.1)).beats(other)
    assert not other.beats(again)
    assert volumes(points[1:], slow_host) == {
        "a": {0: pytest.approx(0.04 * 0.35 / (0.05 * 1.1))},
        "b": {0: pytest.approx(0.02 * 0.2 / (0.05 * 1.1))},
    }
    assert chosen(points[1:]) == [again]


def test_the_interval_of_paired_differences_is_that_of_the_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    later = dict(enumerate(second.tolist()))
    found = mean_difference(dict(enumerate(first.tolist())) | {7: 9.0}, {8: 0.0} | later)
    assert found is not None
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["mean"] == pytest.approx(first.mean() - second.mean())
    assert found["seeds"] == 6


@pytest.mark.parametrize("second", [{}, {0: 1.0}, {0: 1.0, 2: 2.0}])
def test_too_few_seeds_in_common_bound_nothing(second: dict[int, float]) -> None:
    assert mean_difference({0: 1.0, 1: 2.0}, second) is None


def test_points_go_through_json() -> None:
    whole = point(0.9, 0.88, 1.25)
    record = json.loads(json.dumps(whole.to_json()))
    assert Point.from_json(record) == whole
    with pytest.raises(InvalidInputError, match="point, key"):
        Point.from_json(record | {"speed": 1})
