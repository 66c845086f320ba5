import numpy as np

from autocompress.predictor.columns import MOST_LEVELS, Columns


def test_columns_are_scaled_to_their_ranges_and_few_values_get_indicators() -> None:
    rng = np.random.default_rng(0)
    table = np.stack(
        [rng.integers(0, 2, 40), 10 * rng.integers(1, 4, 40), rng.normal(5, 3, 40)], axis=1
    ).astype(np.float64)
    columns = Columns.fit(table)
    scaled = columns.scale(table)
    np.testing.assert_allclose(scaled.min(axis=0), 0.0)
    np.testing.assert_allclose(scaled.max(axis=0), 1.0)
    wide = columns.expand(table)
    assert wide.shape == (40, 3 + 3)  # two values need no indicators, many get none
    np.testing.assert_array_equal(wide[:, 3:], table[:, [1]] == np.array([10.0, 20.0, 30.0]))
    unseen = columns.expand(np.array([[0.0, 40.0, 5.0]]))
    assert unseen[0, 3:].tolist() == [0.0, 0.0, 0.0]


def test_columns_in_one_unit_keep_their_sizes() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(100, 3)) * (1.0, 10.0, 0.1)
    scaled = Columns.fit(table, common_scale=[0, 1]).scale(table)
    spread = scaled.std(axis=0)
    np.testing.assert_allclose(spread[1] / spread[0], table.std(axis=0)[1] / table.std(axis=0)[0])
    np.testing.assert_allclose(scaled[:, :2].mean(axis=0), 0.0, atol=1e-12)
    assert np.ptp(scaled[:, 2]) == 1.0


def test_constant_columns_are_harmless() -> None:
    table = np.full((5, 2), 3.0)
    for shared in ((), (0, 1)):
        assert np.isfinite(Columns.fit(table, shared).expand(table)).all()
    assert MOST_LEVELS >= 3
    constant = np.full((7, 1), 0.1)  # whose standard deviation is a rounding error
    fitted = Columns.fit(constant, (0,))
    assert abs(fitted.scale(np.array([[0.2]]))[0, 0]) < 1.0
