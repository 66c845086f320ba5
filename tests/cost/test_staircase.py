import pytest

from autocompress.core.target import Target
from autocompress.cost import staircase
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.staircase import PROBE_WIDTHS, measure_step, paying_step

FLOAT_MS = (0.154, 0.232, 0.211, 0.607, 0.608, 0.609, 1.31, 1.26, 2.30, 2.26)
INT8_MS = (0.197, 0.209, 0.153, 0.214, 0.233, 0.274, 0.416, 0.464, 0.623, 0.686)
"""Six 3x3 convolutions of 32x32 pixels in ONNX Runtime, one thread of a Sapphire Rapids."""


@pytest.mark.parametrize("times", [FLOAT_MS, INT8_MS])
def test_eight_channels_are_a_unit_of_a_vector_processor(times: tuple[float, ...]) -> None:
    assert paying_step(dict(zip(PROBE_WIDTHS, times, strict=True))) == 8


def test_a_line_has_no_steps_and_a_plateau_has_wide_ones() -> None:
    assert paying_step({width: float(width) for width in range(1, 33)}) == 1
    assert paying_step({width: float(-(-width // 16)) for width in range(1, 65)}) == 16


def test_the_probe_asks_for_equal_widths_and_reads_their_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(keys: list[KernelKey], **_: object) -> dict[KernelKey, float]:
        assert [key.in_channels for key in keys] == [key.out_channels for key in keys]
        return {key: float(-(-key.out_channels // 4)) for key in keys}

    monkeypatch.setattr(staircase, "measure_kernels", measure)
    assert measure_step(Target.named("onnxruntime-cpu")) == 4
