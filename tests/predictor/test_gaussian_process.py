from dataclasses import replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from autocompress.predictor.gaussian_process import GaussianProcess, fit_gaussian_processes


def data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = rng.random((40, 3))
    y = table @ (1.0, -2.0, 0.5) + 0.3 * np.sin(6 * table[:, 0]) + 0.05 * rng.normal(size=40)
    return table, y, rng.random((15, 3))


def reference(process: GaussianProcess, table: np.ndarray, y: np.ndarray) -> object:
    """Return scikit-learn's process with the same kernel, unfitted hyper-parameters."""
    amplitude = process.amplitude
    linear = ConstantKernel(amplitude * process.share / process.norm) * DotProduct(0.0, "fixed")
    matern = ConstantKernel(amplitude * (1 - process.share) + 1e-300) * Matern(
        np.sqrt(process.length), nu=2.5
    )
    kernel = linear + matern + WhiteKernel(amplitude * process.noise)
    return GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(
        table - process.centre, (y - process.mean) / process.scale
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_predictions_and_likelihood_are_those_of_scikit_learn(seed: int) -> None:
    table, y, fresh = data(seed)
    (process,) = fit_gaussian_processes(table, [y])
    other = reference(process, table, y)
    mean, deviation = process.predict(fresh)
    expected, spread = other.predict(fresh - process.centre, return_std=True)  # type: ignore[attr-defined]
    np.testing.assert_allclose(mean, process.mean + process.scale * expected, atol=1e-6)
    latent = spread**2 - process.amplitude * process.noise
    np.testing.assert_allclose(
        deviation, process.scale * np.sqrt(np.maximum(latent, 0.0)), rtol=1e-4, atol=1e-5
    )
    constant = 0.5 * len(y) * (1.0 + np.log(2 * np.pi))
    likelihood = other.log_marginal_likelihood_value_ - len(y) * np.log(process.scale)  # type: ignore[attr-defined]
    assert process.evidence - constant == pytest.approx(likelihood, abs=1e-5)


def test_folds_that_are_left_out_are_predicted_as_if_never_seen() -> None:
    """Neither they nor their part in the mean: generalised least squares of the others."""
    table, y, _ = data(3)
    (process,) = fit_gaussian_processes(table, [y])
    folds = np.array_split(np.random.default_rng(0).permutation(40), 5)
    mean, deviation = process.left_out(y, folds)
    kernel = np.linalg.inv(process.precision)  # with noise
    for fold in folds:
        rest = np.setdiff1d(np.arange(40), fold)
        block, cross = kernel[np.ix_(rest, rest)], kernel[np.ix_(fold, rest)]
        ones = np.linalg.solve(block, np.ones(len(rest)))
        middle = ones @ y[rest] / ones.sum()
        expected = middle + cross @ np.linalg.solve(block, y[rest] - middle)
        np.testing.assert_allclose(mean[fold], expected, atol=1e-8)
        latent = kernel[np.ix_(fold, fold)] - cross @ np.linalg.solve(block, cross.T)
        unknown = (1.0 - cross @ ones) ** 2 / ones.sum()
        variance = process.amplitude * (latent.diagonal() - process.noise + unknown)
        np.testing.assert_allclose(deviation[fold], process.scale * np.sqrt(variance), rtol=1e-5)


def test_where_inputs_are_centred_does_not_tell_what_was_left_out() -> None:
    """With more inputs than rows, the last row is minus the sum of the others, and so its value."""
    rng = np.random.default_rng(0)
    table, y = rng.normal(size=(5, 12)), rng.normal(size=5)
    folds = [np.array([i]) for i in range(5)]
    mean, _ = fit_gaussian_processes(table, [y])[0].left_out(y, folds)
    moved = y + np.array([0.0, 0.0, 0.0, 0.0, 10.0])
    (process,) = fit_gaussian_processes(table, [y])
    middle = float(moved.mean())
    weights = process.precision @ ((moved - middle) / process.scale)
    again, _ = replace(process, mean=middle, weights=weights).left_out(moved, folds)
    assert again[4] == pytest.approx(mean[4])


def test_several_targets_are_fitted_as_each_alone() -> None:
    table, y, fresh = data(4)
    both = fit_gaussian_processes(table, [y, -3.0 * y + 1.0])
    (alone,) = fit_gaussian_processes(table, [y])
    np.testing.assert_allclose(both[0].predict(fresh)[0], alone.predict(fresh)[0])
    np.testing.assert_allclose(both[1].predict(fresh)[0], 1.0 - 3.0 * alone.predict(fresh)[0])


def test_equal_targets_are_predicted_exactly() -> None:
    table, y, fresh = data(5)
    (process,) = fit_gaussian_processes(table, [np.full_like(y, 0.25)])
    np.testing.assert_allclose(process.predict(fresh)[0], 0.25, atol=1e-9)
