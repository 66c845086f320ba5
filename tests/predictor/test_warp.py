import numpy as np
import pytest

from autocompress.predictor.warp import Warp


@pytest.mark.parametrize("logarithmic", [True, False])
def test_the_scale_is_increasing_and_inverts(logarithmic: bool) -> None:
    y = 0.92 - np.random.default_rng(0).gamma(2.0, 0.01, 200)
    warp = Warp.fit(y, logarithmic=logarithmic)
    values = np.sort(y[y > warp.floor])
    places = warp.forward(values)
    assert (np.diff(places) >= 0.0).all()
    np.testing.assert_allclose(warp.inverse(places), values, atol=1e-12)
    step = 1e-6
    numeric = (warp.inverse(places + step) - warp.inverse(places - step)) / (2 * step)
    np.testing.assert_allclose(warp.slope(places), numeric, rtol=1e-5)


def test_how_far_a_collapse_falls_says_nothing() -> None:
    y = np.concatenate([np.linspace(0.8, 0.9, 50), [0.1, 0.4]])
    warp = Warp.fit(y, logarithmic=True)
    assert 0.4 < warp.floor < 0.8
    assert warp.forward(np.array([0.1, 0.4])).tolist() == [warp.lowest] * 2


def test_a_limit_lies_above_the_floor() -> None:
    y = np.concatenate([np.linspace(0.898, 0.9, 50), np.linspace(0.80, 0.88, 10)])
    assert Warp.fit(y, logarithmic=True).floor > 0.87
    for logarithmic in (True, False):
        warp = Warp.fit(y, logarithmic=logarithmic, limit=0.87)
        assert warp.floor == pytest.approx(0.84)
        below, above = warp.forward(np.array([0.86, 0.875]))
        assert below < above


def test_equal_values_have_a_scale() -> None:
    for logarithmic in (True, False):
        warp = Warp.fit(np.full(5, 0.5), logarithmic=logarithmic)
        assert np.isfinite(warp.forward(np.array([0.5]))).all()
        np.testing.assert_allclose(warp.inverse(warp.forward(np.array([0.5]))), [0.5])


def test_a_logarithmic_bound_stays_near_the_best() -> None:
    y = np.linspace(0.7, 0.9, 30)
    warp = Warp.fit(y, logarithmic=True)
    assert warp.inverse(np.array([50.0]))[0] < 0.9 + 0.2 * warp.scale
