import pytest

from autocompress.report.progress import correlation_figure, hypervolume_figure


def test_the_curve_goes_on_as_it_is_expected_to() -> None:
    outlook = {"curve": [0.1, 0.3, 0.3], "more": 3, "expected": 0.4, "low": 0.35, "high": 0.6}
    so_far, ahead = hypervolume_figure(outlook).data
    assert list(so_far.x) == [1, 2, 3]
    assert list(so_far.y) == pytest.approx([100 / 3, 100, 100])
    assert list(ahead.x) == [3, 6]
    assert list(ahead.y) == pytest.approx([100, 400 / 3])
    assert ahead.error_y.array[1] == pytest.approx(200 / 3)
    assert ahead.error_y.arrayminus[1] == pytest.approx(50 / 3)


def test_nothing_is_promised_that_could_not_be_told() -> None:
    (so_far,) = hypervolume_figure({"curve": [0.1], "more": 1}).data
    assert so_far.name == "so far"


def test_every_fit_is_a_point() -> None:
    rounds = [
        {"trials": 10, "rank_correlations": {"0": 0.4}},
        {"trials": 20, "rank_correlations": {"0": 0.7}},
        {"trials": 30, "rank_correlations": {}},
    ]
    (line,) = correlation_figure(rounds).data
    assert list(line.x) == [10, 20, 30]
    assert list(line.y) == [0.4, 0.7, None]
