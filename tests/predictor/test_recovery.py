import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autocompress.errors import InvalidInputError
from autocompress.predictor.recovery import (
    EXPONENTS,
    FEATURES,
    FLOOR_PRIOR,
    FLOORS,
    PRIOR,
    LearningCurve,
    RecoveryModel,
)

WIDTH = len(FEATURES)


def _rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, WIDTH))


def test_planted_weights_are_recovered() -> None:
    rng = np.random.default_rng(1)
    planted = np.array([0.35, 0.0, 0.12, 0.2])
    rows = _rows(400)
    model = RecoveryModel.fit(rows, rows @ planted + rng.normal(0, 0.01, 400))
    np.testing.assert_allclose(model.weights, planted, atol=0.01)
    assert model.deviation == pytest.approx(0.01, rel=0.15)
    assert model.examples == 400
    np.testing.assert_allclose(model.predict(_rows(5, 2))[0], _rows(5, 2) @ planted, atol=0.01)


def test_without_data_the_prior_stands() -> None:
    empty = RecoveryModel.fit(np.zeros((0, WIDTH)), np.zeros(0))
    assert empty == RecoveryModel()
    assert empty.weights == PRIOR
    np.testing.assert_allclose(RecoveryModel().predict(np.eye(WIDTH))[0], PRIOR)


def test_one_example_moves_only_what_it_shows() -> None:
    row = np.zeros((1, WIDTH))
    row[0, 1] = 0.5
    model = RecoveryModel.fit(row, np.array([0.1]))
    expected = list(PRIOR)
    expected[1] = 0.2
    np.testing.assert_allclose(model.weights, expected, atol=2e-3)


@given(
    rows=arrays(np.float64, (6, WIDTH), elements=st.floats(0, 1)),
    lost=arrays(np.float64, 6, elements=st.floats(-0.2, 1)),
)
def test_weights_are_never_negative(rows: np.ndarray, lost: np.ndarray) -> None:
    model = RecoveryModel.fit(rows, lost)
    assert min(model.weights) >= 0
    assert model.deviation > 0
    assert (np.array(model.predict(_rows(4))) >= 0).all()


@pytest.mark.parametrize("feature", range(WIDTH), ids=FEATURES)
def test_predictions_move_with_every_feature(feature: int) -> None:
    rows = np.full((2, WIDTH), 0.2)
    rows[1, feature] += 0.3
    low, high = RecoveryModel().predict(rows)[0]
    assert high - low == pytest.approx(0.3 * PRIOR[feature])


def test_the_deviation_grows_away_from_what_was_trained() -> None:
    rows = np.zeros((8, WIDTH))
    rows[:, 0] = np.linspace(0.1, 0.5, 8)
    model = RecoveryModel.fit(rows, 0.3 * rows[:, 0])
    _, (near, far, unlike) = model.predict(np.diag([0.3, 0.6, 0.0, 0.6])[[0, 1, 3]])
    assert near < 0.01 < unlike
    assert far == pytest.approx(0.6 * PRIOR[1])
    assert (RecoveryModel().predict(rows)[1] > model.predict(rows)[1]).all()


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        (np.zeros((3, WIDTH)), np.zeros(2)),
        (np.zeros((3, WIDTH + 1)), np.zeros(3)),
        (np.zeros(WIDTH), np.zeros(1)),
        (np.full((1, WIDTH), np.nan), np.zeros(1)),
        (np.zeros((1, WIDTH)), np.array([np.inf])),
    ],
)
def test_wrong_shapes_and_values_are_refused(rows: np.ndarray, lost: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="'X'"):
        RecoveryModel.fit(rows, lost)


def test_a_curve_moves_from_its_prior_to_what_was_seen() -> None:
    planted = LearningCurve(exponent=0.9)
    short, ratio = np.array([0.1, 0.04, 0.2]), np.array([0.1, 0.3, 0.05])
    full = short * np.array([planted.left(share) for share in ratio])
    seen = [LearningCurve.fit(short[:n], full[:n], ratio[:n]) for n in range(4)]
    assert seen[0] == LearningCurve()
    far = [max(abs(curve.left(share) - planted.left(share)) for share in ratio) for curve in seen]
    assert far[0] > 0.1 > 0.05 > far[-1]


def test_what_long_training_leaves_is_the_floor() -> None:
    short, ratio = np.array([0.1, 0.15, 0.2]), np.array([0.01, 0.01, 0.02])
    none, much = (LearningCurve.fit(short, floor * short, ratio) for floor in (0.0, 0.3))
    assert none.floor < FLOOR_PRIOR < much.floor
    assert none.left(0.01) < 0.05
    assert much.left(0.01) == pytest.approx(0.3, abs=0.03)
    assert much.left(1.0) == 1.0


@given(
    short=arrays(np.float64, 4, elements=st.floats(0, 1)),
    full=arrays(np.float64, 4, elements=st.floats(0, 1)),
    ratio=arrays(np.float64, 4, elements=st.floats(0.01, 1)),
)
def test_exponent_and_floor_stay_in_their_ranges(
    short: np.ndarray, full: np.ndarray, ratio: np.ndarray
) -> None:
    curve = LearningCurve.fit(short, full, ratio)
    assert EXPONENTS[0] <= curve.exponent <= EXPONENTS[-1]
    assert FLOORS[0] <= curve.floor <= FLOORS[-1]
    assert curve.left(0.01) <= curve.left(0.1) <= curve.left(1.0) == 1.0
