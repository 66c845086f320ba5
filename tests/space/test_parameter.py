import math

import pytest

from autocompress.space.parameter import Parameter

INDEX = Parameter(name="i", kind="int", low=0, high=6)
TEMPERATURE = Parameter(name="t", kind="float", low=1.0, high=8.0, log=True)


def test_scales_run_from_zero_to_one():
    for parameter in (INDEX, TEMPERATURE):
        assert parameter.to_unit(parameter.low) == 0.0
        assert parameter.to_unit(parameter.high) == 1.0
        assert parameter.from_unit(0.0) == parameter.low
        assert parameter.from_unit(1.0) == pytest.approx(parameter.high)


def test_a_log_scale_halves_at_the_geometric_mean():
    assert TEMPERATURE.to_unit(math.sqrt(8.0)) == pytest.approx(0.5)
    assert TEMPERATURE.from_unit(0.5) == pytest.approx(math.sqrt(8.0))


def test_every_integer_comes_back():
    assert [INDEX.from_unit(INDEX.to_unit(v)) for v in range(7)] == list(range(7))
    assert all(isinstance(INDEX.from_unit(u / 10), int) for u in range(11))


def test_values_outside_are_clipped():
    assert INDEX.from_unit(1.7) == 6
    assert TEMPERATURE.settle(100.0) == 8.0
    assert TEMPERATURE.from_unit(-3.0) == 1.0


def test_a_fixed_value_has_a_scale_too():
    fixed = Parameter(name="t", kind="float", low=2.0, high=2.0)
    assert fixed.to_unit(2.0) == 0.0
    assert fixed.from_unit(0.7) == 2.0
