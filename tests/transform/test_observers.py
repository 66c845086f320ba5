import numpy as np
import pytest
import torch

from autocompress.core.quantisation import OBSERVERS
from autocompress.transform.grids import activation_grid
from autocompress.transform.observers import SAMPLE, RangeObserver


def _watched(*batches: torch.Tensor) -> RangeObserver:
    observer = RangeObserver()
    for batch in batches:
        observer.watch(batch)
    return observer


def _heavy(count: int) -> torch.Tensor:
    """Values of which few lie far out."""
    values = torch.randn(count)
    values[::997] *= 20.0
    return values


def test_extremes_and_their_moving_average() -> None:
    observer = _watched(torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 1.0]))
    assert observer.range("minmax", 8) == (-1.0, 2.0)
    assert observer.range("moving_average", 8) == pytest.approx((-0.1, 1.9))


def test_a_percentile_leaves_outliers_out() -> None:
    batches = torch.rand(3, 8000)
    batches[0, 0] = 1e6
    assert _watched(*batches).range("percentile", 8)[1] <= 1.0 + 1e-3


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_least_squared_error_is_found(bits: int) -> None:
    values = _heavy(5000).relu()

    def error(high: float) -> float:
        scale, _ = activation_grid(0.0, high, bits)
        array = values.numpy()
        return float(((np.clip(np.rint(array / scale), 0, 2**bits - 1) * scale - array) ** 2).sum())

    low, high = _watched(values).range("mse", bits)
    least = min(error(float(values.max()) * step / 200) for step in range(1, 201))
    assert low == 0.0
    assert error(high) <= 1.1 * least + 1e-9


def test_narrow_grids_clip_more() -> None:
    observer = _watched(_heavy(8000))
    for name in ("mse", "entropy"):
        low4, high4 = observer.range(name, 4)
        low8, high8 = observer.range(name, 8)
        assert high4 - low4 < high8 - low8 <= observer.high - observer.low, name
        assert low4 < 0.0 < high4


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_stays_inside_what_was_seen(name: str) -> None:
    batches = [torch.randn(4, 8, 40, 40).relu().contiguous(memory_format=torch.channels_last)] * 2
    observer = _watched(*batches)
    low, high = observer.range(name, 8)
    assert 0.0 <= low <= high <= batches[0].max() + 1e-5
    assert high > 1.0
    constant = _watched(torch.zeros(10)).range(name, 8)
    assert constant == (0.0, 0.0)


def test_large_tensors_are_sampled_everywhere() -> None:
    observer = _watched(torch.arange(10 * SAMPLE).float().reshape(10, SAMPLE))
    sample = torch.cat(observer._samples)
    assert len(sample) == SAMPLE
    counts, _ = np.histogram(sample.numpy(), bins=10, range=(0, 10 * SAMPLE))
    assert counts.min() > 0.8 * SAMPLE / 10


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        _watched(torch.tensor([0.0, value]))
