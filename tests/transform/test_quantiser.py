import pytest
import torch

from autocompress.transform.quantiser import TensorQuantiser


def test_a_quantiser_widens_over_batches_and_holds_zero() -> None:
    quantiser = TensorQuantiser(8)
    quantiser.observer.watch(torch.tensor([0.5, 2.0]))
    quantiser.fit("minmax")
    assert (quantiser.zero_point, quantiser.scale) == (0, pytest.approx(2.0 / 255))
    quantiser.observer.watch(torch.tensor([-1.0, 0.0]))
    quantiser.fit("minmax")
    assert (quantiser.zero_point, quantiser.scale) == (85, pytest.approx(3.0 / 255))


def test_a_quantiser_that_saw_nothing_stays_as_it_is() -> None:
    quantiser = TensorQuantiser(4)
    quantiser.set_extra_state(torch.tensor([-1.0, 2.0, 0.2, 5.0], dtype=torch.float64))
    quantiser.fit("mse")
    assert (quantiser.low, quantiser.high, quantiser.scale) == (-1.0, 2.0, 0.2)
    quantiser.reset()
    assert quantiser.low is None
