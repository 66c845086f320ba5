import numpy as np
import pytest

from autocompress.cost.latency_features import PRIOR
from autocompress.cost.learned import UNKNOWN_ERROR, fit_latency


def _networks(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.1, 1.0, (count, 1))
    return level * rng.uniform(0.2, 1.0, (count, len(PRIOR)))


def _latency(table: np.ndarray) -> np.ndarray:
    """A host that is 1.5 times slower than its kernels were, and floats slower still."""
    return 1.5 * (table @ PRIOR) + 0.5 * table[:, 1] + 0.05


def test_without_networks_the_sum_stands() -> None:
    table = _networks(5)
    model = fit_latency(np.empty((0, len(PRIOR))), np.empty(0), PRIOR)
    means, deviations = model.predict(table)
    np.testing.assert_allclose(means, table @ PRIOR)
    np.testing.assert_allclose(deviations, UNKNOWN_ERROR * means)


def test_one_network_scales_the_sum() -> None:
    table = _networks(6)
    model = fit_latency(table[:1], 2.0 * (table[:1] @ PRIOR), PRIOR)
    np.testing.assert_allclose(model.predict(table)[0], 2.0 * (table @ PRIOR), rtol=1e-3)


@pytest.mark.parametrize("count", [10, 25, 60])
def test_networks_correct_the_physics(count: int) -> None:
    rng = np.random.default_rng(1)
    table, fresh = _networks(count), _networks(200, seed=2)
    model = fit_latency(table, _latency(table) * rng.normal(1.0, 0.01, count), PRIOR)
    means, deviations = model.predict(fresh)
    errors = np.abs(means / _latency(fresh) - 1)
    assert np.quantile(errors, 0.95) < 0.1
    assert np.mean(np.abs(means - _latency(fresh)) < 3 * deviations) > 0.9


def test_what_was_never_seen_keeps_the_prior() -> None:
    table, fresh = _networks(12), _networks(50, seed=3)
    table[:, 1] = 0.0  # no network with floats was measured
    model = fit_latency(table, 1.5 * (table @ PRIOR), PRIOR)
    np.testing.assert_allclose(model.predict(fresh)[0], 1.5 * (fresh @ PRIOR), rtol=0.1)


def test_a_curve_calls_for_a_regressor() -> None:
    table, fresh = _networks(120), _networks(200, seed=4)

    def curved(rows: np.ndarray) -> np.ndarray:
        share = rows[:, 0] / rows.sum(axis=1)
        return (rows @ PRIOR) * np.exp(6.0 * share)

    model = fit_latency(table, curved(table), PRIOR)
    assert "and" in model.chosen
    errors = np.abs(model.predict(fresh)[0] / curved(fresh) - 1)
    assert np.median(errors) < 0.05
