from collections.abc import Mapping, Sequence

from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.sampling import sample_kernels

WIDTHS = range(8, 129, 8)


def _key(outputs: int, inputs: int = 16) -> KernelKey:
    return KernelKey(
        kind="conv",
        in_channels=inputs,
        out_channels=outputs,
        kernel=(3, 3),
        stride=(1, 1),
        size=(8, 8),
    )


def _measure(step: int, seen: list[KernelKey]):  # type: ignore[no-untyped-def]
    """Time kernels on a staircase that rises only once, or not at all."""

    def measure(keys: Sequence[KernelKey]) -> Mapping[KernelKey, float]:
        seen.extend(keys)
        return {k: k.out_channels / 100 + (0.5 if k.out_channels > step > 0 else 0.0) for k in keys}

    return measure


def test_a_line_takes_its_ends_and_its_middle() -> None:
    seen: list[KernelKey] = []
    sample_kernels([_key(width) for width in WIDTHS], _measure(0, seen), 100)
    assert sorted(key.out_channels for key in seen) == [8, 72, 128]


def test_a_step_is_closed_in_on() -> None:
    seen: list[KernelKey] = []
    times = sample_kernels([_key(width) for width in WIDTHS], _measure(90, seen), 100)
    measured = {key.out_channels for key in times}
    assert {88, 96} <= measured
    assert len(seen) == len(set(seen)) == len(times)


def test_the_number_is_kept() -> None:
    keys = [_key(width, inputs) for width in WIDTHS for inputs in (8, 24, 40, 56)]
    assert len(sample_kernels(keys, _measure(90, []), 20)) == 20
    assert len(sample_kernels(keys, _measure(90, []), 2)) == 4 * 3  # each number of inputs has its
