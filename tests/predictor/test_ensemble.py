import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

import autocompress as ac
from autocompress.errors import InvalidInputError, MissingFileError, StudyError
from autocompress.predictor.ensemble import MOST_ROWS, NORMAL_QUANTILE, _widening


def problem(count: int, seed: int, noise: float = 0.003) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of made-up networks: additive damages that are bent, and noise."""
    rng = np.random.default_rng(seed)
    designs = rng.integers(0, 4, (count, 12)).astype(np.float64)
    damage = designs**1.5 @ np.linspace(0.2, 1.8, 12) / 60.0
    return designs, 0.9 - 0.5 * damage**1.5 + noise * rng.normal(size=count)


def test_left_out_networks_are_ranked_and_intervals_cover_nine_of_ten() -> None:
    covered, taus = [], []
    for seed in range(4):
        X, y = problem(60, seed)  # noqa: N806
        fresh, truth = problem(300, 100 + seed)
        predictor = ac.AccuracyPredictor(seed=seed).fit(X, y)
        mean, deviation = predictor.predict(fresh, return_std=True)
        covered.append((np.abs(mean - truth) <= NORMAL_QUANTILE * deviation).mean())
        taus.append(kendalltau(mean, truth).statistic)
        assert predictor.rank_correlation_ == pytest.approx(taus[-1], abs=0.2)
    assert min(taus) > 0.75
    assert 0.84 <= np.mean(covered) <= 0.97


def test_of_a_few_noisy_rows_no_rank_correlation_is_claimed() -> None:
    covered = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows, fresh = rng.normal(size=(5, 6)), rng.normal(size=(100, 6))
        predictor = ac.AccuracyPredictor().fit(rows, 0.8 + 0.05 * rng.normal(size=5))
        mean, deviation = predictor.predict(fresh, return_std=True)
        assert np.isnan(predictor.rank_correlation_)
        truth = 0.8 + 0.05 * rng.normal(size=100)
        covered.append((np.abs(mean - truth) <= NORMAL_QUANTILE * deviation).mean())
    assert np.mean(covered) > 0.65


@pytest.mark.parametrize(("count", "quantile"), [(2, 6.3138), (5, 2.1318), (8, 1.8946)])
def test_few_errors_are_widened_by_students_t(count: int, quantile: float) -> None:
    """Upper 5 % points of Student's t with 1, 4 and 7 degrees of freedom, from tables."""
    errors = np.linspace(0.5, 2.0, count)
    expected = 2.0 * quantile / NORMAL_QUANTILE**2
    assert _widening(errors) == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_predictions_and_every_variable_moves_them() -> None:
    X, y = problem(60, 0)  # noqa: N806
    one, same, other = (ac.AccuracyPredictor(seed=s).fit(X, y) for s in (0, 0, 1))
    fresh = problem(50, 9)[0]
    assert (one.predict(fresh) == same.predict(fresh)).all()
    assert (one.predict(fresh) != other.predict(fresh)).any()
    base = np.full((1, 12), 1.0)
    for column in range(12):
        moved = base.copy()
        moved[0, column] = 3.0
        assert one.predict(moved)[0] < one.predict(base)[0], column


def test_a_collapse_does_not_bend_what_is_said_of_others() -> None:
    X, y = problem(60, 1)  # noqa: N806
    fresh, truth = problem(200, 101)
    collapsed = y.copy()
    collapsed[:4] = 0.1
    plain = ac.AccuracyPredictor().fit(X, y).predict(fresh)
    robust = ac.AccuracyPredictor().fit(X, collapsed).predict(fresh)
    error = np.abs(robust - truth)[truth > np.quantile(truth, 0.3)].mean()
    assert error < 3.0 * np.abs(plain - truth).mean() + 0.01
    assert robust.min() > 0.1


def test_bounds_are_ordered_and_stay_near_the_best() -> None:
    X, y = problem(60, 2)  # noqa: N806
    predictor = ac.AccuracyPredictor().fit(X, y)
    fresh = problem(50, 102)[0]
    bounds = predictor.predict_bounds(fresh, [0.0, 0.3, 1.0])
    np.testing.assert_allclose(bounds[0], predictor.predict(fresh))
    assert (bounds[0] <= bounds[1]).all()
    assert (bounds[1] <= bounds[2]).all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_few_rows_are_enough(count: int) -> None:
    X, y = problem(count, 3)  # noqa: N806
    predictor = ac.AccuracyPredictor().fit(X, y)
    mean, deviation = predictor.predict(problem(5, 4)[0], return_std=True)
    assert np.isfinite(mean).all()
    assert (deviation > 0.0).all()
    assert sum(predictor.weights_) == pytest.approx(1.0)


def test_equal_accuracies_and_many_rows_are_no_trouble() -> None:
    X, y = problem(30, 5)  # noqa: N806
    flat = ac.AccuracyPredictor().fit(X, np.full(30, 0.5))
    np.testing.assert_allclose(flat.predict(X), 0.5, atol=1e-6)
    assert np.isnan(flat.rank_correlation_)
    X, y = problem(MOST_ROWS + 50, 6)  # noqa: N806
    predictor = ac.AccuracyPredictor().fit(X, y)
    assert kendalltau(predictor.predict(X), y).statistic > 0.8


def test_what_is_saved_predicts_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    X, y = problem(30, 7)  # noqa: N806
    predictor = ac.AccuracyPredictor(seed=3, common_scale=[0, 1], limit=0.6).fit(X, y)
    path = tmp_path / "predictor.npz"
    predictor.save(path)
    with caplog.at_level(logging.WARNING):
        loaded = ac.AccuracyPredictor.load(path)
    assert not caplog.records
    assert (loaded.predict(X) == predictor.predict(X)).all()
    assert (loaded.common_scale, loaded.limit) == ((0, 1), 0.6)
    with np.load(path, allow_pickle=False) as archive:  # no pickles inside
        assert set(archive) == {"X", "y", "record"}


def test_files_that_are_absent_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="expected a saved predictor"):
        ac.AccuracyPredictor.load(tmp_path / "none.npz")
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(StudyError, match="damaged"):
        ac.AccuracyPredictor.load(path)
    with pytest.raises(InvalidInputError, match="data before it is saved"):
        ac.AccuracyPredictor().save(path)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0], [2.0]], [1.0], "'y': expected 2 values"),
        ([[1.0]], [1.0], "'y': expected 2 values"),
        ([1.0, 2.0], [1.0, 2.0], "'X': expected an n x d array"),
        ([[1.0], [float("nan")]], [1.0, 2.0], "'X': expected finite"),
        ([[1.0], [2.0]], [1.0, float("inf")], "'y': expected finite"),
    ],
)
def test_data_that_do_not_fit_are_refused(X: object, y: object, message: str) -> None:  # noqa: N803
    with pytest.raises(InvalidInputError, match=message):
        ac.AccuracyPredictor().fit(X, y)  # type: ignore[arg-type]


def test_predicting_too_early_or_of_something_else_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="data before predictions"):
        ac.AccuracyPredictor().predict([[1.0]])
    X, y = problem(10, 8)  # noqa: N806
    with pytest.raises(InvalidInputError, match="expected 12 columns"):
        ac.AccuracyPredictor().fit(X, y).predict([[1.0]])
    with pytest.raises(InvalidInputError, match="columns below 12"):
        ac.AccuracyPredictor(common_scale=[12]).fit(X, y)


@pytest.mark.parametrize(("count", "rank"), [(9, 9), (20, 19), (50, 46), (100, 91)])
def test_the_conformal_rank_is_the_least_that_covers(count: int, rank: int) -> None:
    errors = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert _widening(errors) == pytest.approx(rank / NORMAL_QUANTILE)


@pytest.mark.parametrize(
    "change",
    [
        {"X": [1.0, 2.0]},
        {"X": [["a"], ["b"]]},
        {"y": [1.0]},
        {"y": [1.0, float("nan")]},
        {"record": "{"},
        {"record": "[]"},
        {"record": "{}"},
        {"seed": "a"},
        {"seed": -1},
        {"common_scale": 3},
        {"common_scale": [7]},
        {"limit": "high"},
        {"colour": "blue"},
    ],
)
def test_files_of_another_content_are_damaged_too(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "predictor.npz"
    ac.AccuracyPredictor().fit([[1.0], [2.0]], [0.1, 0.2]).save(path)
    with np.load(path, allow_pickle=False) as archive:
        parts: dict[str, Any] = {name: archive[name] for name in archive}
    ac.AccuracyPredictor.load(path)
    if set(change) <= set(parts):
        parts |= change
    else:
        parts["record"] = json.dumps(json.loads(str(parts["record"])) | change)
    np.savez(path, **parts)
    with pytest.raises(StudyError, match="damaged"):
        ac.AccuracyPredictor.load(path)


def test_the_file_of_another_version_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "predictor.npz"
    ac.AccuracyPredictor().fit([[1.0], [2.0]], [0.1, 0.2]).save(path)
    with np.load(path, allow_pickle=False) as archive:
        parts: dict[str, Any] = {name: archive[name] for name in archive}
    parts["record"] = json.dumps(json.loads(str(parts["record"])) | {"schema_version": 99})
    np.savez(path, **parts)
    with pytest.raises(InvalidInputError, match="got 99; use the version of autocompress"):
        ac.AccuracyPredictor.load(path)
