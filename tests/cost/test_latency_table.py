import pytest

from autocompress.cost.latency_table import check_times, interpolate
from autocompress.errors import InvalidInputError


def test_interpolation_goes_through_points_and_scales_outside() -> None:
    times = {8: 1.0, 16: 3.0}
    assert [interpolate(times, width) for width in (4, 8, 10, 16, 24)] == [0.5, 1.0, 1.5, 3.0, 4.5]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "fast", None])
def test_times_are_positive_milliseconds(value: object) -> None:
    check_times({"conv": 0.5})
    with pytest.raises(InvalidInputError, match=r"conv.*milliseconds > 0"):
        check_times({"conv": value})  # type: ignore[dict-item]
