import pytest

from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.profiling import measure_kernels
from autocompress.cost.torch_kernels import kernel_call

CONV = KernelKey(
    kind="conv", in_channels=8, out_channels=16, kernel=(3, 3), stride=(2, 2), size=(8, 8)
)
KEYS = [
    CONV,
    KernelKey(
        kind="conv",
        in_channels=8,
        out_channels=8,
        kernel=(3, 3),
        stride=(1, 1),
        groups=8,
        size=(16, 16),
    ),
    KernelKey(kind="linear", in_channels=64, out_channels=10),
    KernelKey(kind="add", in_channels=8, out_channels=8, size=(16, 16)),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_kernel_has_the_size_of_its_key(key: KernelKey) -> None:
    result = kernel_call(key, 2, Target.named("torch-cpu", batch_size=3))()
    positions = key.size or (1,)
    if key.kind == "linear":
        assert tuple(result.shape) == (3, key.out_channels)  # type: ignore[attr-defined]
    else:
        assert tuple(result.shape) == (3, key.out_channels, *positions)  # type: ignore[attr-defined]


def test_kernels_are_measured_in_pytorch() -> None:
    times = measure_kernels(KEYS, runtime="torch", seconds=0.2)
    assert set(times) == set(KEYS)
    assert all(ms > 0 for ms in times.values())
