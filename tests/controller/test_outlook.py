"""Hypervolume curves and what they promise."""

import numpy as np
import pytest

from autocompress.controller.outlook import hypervolume_curve, look_ahead
from autocompress.core.pareto import hypervolume
from autocompress.errors import InvalidInputError


def power_law(trials: int, limit: float, gap: float, decay: float) -> np.ndarray:
    return limit - gap * np.arange(1.0, trials + 1) ** -decay


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_curve_is_the_hypervolume_of_every_prefix(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    losses = rng.random((25, objectives))
    losses[3] = np.inf
    reference = np.full(objectives, 0.9)
    expected = [hypervolume(losses[:n], reference) for n in range(1, 26)]
    assert hypervolume_curve(losses, reference) == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.3, 1.0, 2.0])
def test_a_power_law_is_continued(decay: float) -> None:
    curve = power_law(400, 5.0, 2.0, decay)
    ahead = look_ahead(curve[:100], 300)
    assert ahead.expected == pytest.approx(curve[-1], abs=0.03)
    assert ahead.low <= ahead.expected <= ahead.high
    assert ahead.limit >= ahead.expected
    assert ahead.gain == pytest.approx(curve[-1] / curve[99] - 1, abs=0.01)


def test_a_noisy_staircase_is_bracketed() -> None:
    rng = np.random.default_rng(0)
    steps = rng.random(200) < 0.3
    curve = power_law(200, 5.0, 2.0, 0.7)
    stairs = np.maximum.accumulate(np.where(steps, curve, 0.0))
    ahead = look_ahead(stairs[:80], 120)
    assert ahead.low <= curve[-1] + 0.05
    assert ahead.high >= curve[-1] - 0.05


def test_a_flat_curve_promises_nothing() -> None:
    ahead = look_ahead(np.full(50, 2.0), 100)
    assert (ahead.expected, ahead.high, ahead.gain) == (2.0, 2.0, 0.0)
    assert not ahead.is_worth(0.001)


def test_a_rising_curve_is_worth_more() -> None:
    curve = power_law(50, 5.0, 3.0, 0.3)
    assert look_ahead(curve, 50).is_worth(0.01)
    assert not look_ahead(curve, 1).is_worth(0.05)


def test_few_trials_and_empty_fronts_leave_all_open() -> None:
    for curve in (np.ones(3), np.zeros(40)):
        ahead = look_ahead(curve, 10)
        assert ahead.is_worth(0.5)
        assert ahead.expected == curve[-1]
    assert look_ahead(np.zeros(40), 10).gain == np.inf
    assert "none promises to meet the limits yet; what 10" in look_ahead(np.zeros(40), 10).words()
    assert not look_ahead(np.ones(3), 0).is_worth(0.5)
    assert look_ahead(np.empty(0), 10).words() == "too few trials to tell what 10 more would add"


@pytest.mark.parametrize("curve", [[2.0, 1.0], [[1.0]]])
def test_what_is_no_curve_is_refused(curve: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="never falls"):
        look_ahead(np.array(curve), 5)
    with pytest.raises(InvalidInputError, match="trials to come"):
        look_ahead(np.ones(20), -1)


def test_rounding_errors_lower_no_curve() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        losses = rng.random((12, 3))
        near = losses[rng.integers(0, 12, 10)]
        near[np.arange(10), rng.integers(0, 3, 10)] = np.nextafter(
            near[np.arange(10), rng.integers(0, 3, 10)], 0.0
        )
        curve = hypervolume_curve(np.concatenate([losses, near]), np.ones(3))
        assert (np.diff(curve) >= 0.0).all()
