import pytest

from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import KernelPlan
from autocompress.cost.latency_table import LatencyTable, check_times, interpolate
from autocompress.errors import InvalidInputError
from toy_graphs import residual_graph


def test_interpolation_goes_through_points_and_scales_outside() -> None:
    times = {8: 1.0, 16: 3.0}
    assert [interpolate(times, width) for width in (4, 8, 10, 16, 24)] == [0.5, 1.0, 1.5, 3.0, 4.5]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "fast", None])
def test_times_are_positive_milliseconds(value: object) -> None:
    check_times({"conv": 0.5})
    with pytest.raises(InvalidInputError, match=r"conv.*milliseconds > 0"):
        check_times({"conv": value})  # type: ignore[dict-item]


def test_rows_that_reach_as_far_are_read_between_their_widths() -> None:
    def key(inputs: int, outputs: int) -> KernelKey:
        return KernelKey(kind="linear", in_channels=inputs, out_channels=outputs)

    narrow = {key(16, 8): 1.0, key(16, 16): 1.5}  # extended in proportion it would give 9.0 at 96
    wide = {key(8, 96): 2.0, key(32, 96): 8.0}
    plan = KernelPlan(residual_graph(), Target.named("onnxruntime-cpu"))
    assert LatencyTable(plan, narrow | wide).time(key(16, 96)) == pytest.approx(4.0)
    assert LatencyTable(plan, narrow).time(key(16, 96)) == pytest.approx(9.0)
