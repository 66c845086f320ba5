import pytest
import torch

from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.profiling import measure_kernels
from autocompress.cost.torch_kernels import _Kernels, kernel_call, kernel_input
from autocompress.graph.attention_product import FUSED

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
    *(
        KernelKey(
            kind=kind, in_channels=8, out_channels=8, kernel=(3, 3), stride=(2, 2), size=(8, 8)
        )
        for kind in ("maxpool", "avgpool")
    ),
    KernelKey(kind="attention", in_channels=2, out_channels=2, kernel=(4,), size=(6, 5)),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_kernel_has_the_size_of_its_key(key: KernelKey) -> None:
    before = torch.get_rng_state()
    results = kernel_call(key, 2, Target.named("torch-cpu", batch_size=3))()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(results, list)
    expected = (3, key.out_channels, *key.size)
    if key.kind == "attention":
        expected = (3, 2, 6, 4)
    assert [tuple(result.shape) for result in results] == [expected] * 2


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_compiler_that_leaves_out_what_is_not_used_leaves_out_no_kernel(key: KernelKey) -> None:
    x = torch.randn(kernel_input(key, 2))
    traced = torch.export.export(_Kernels(key, 5, 2).eval(), (x,))
    traced.graph.eliminate_dead_code()
    last = {"maxpool": "max_pool2d", "avgpool": "avg_pool2d", "attention": FUSED}
    called = [str(node.target) for node in traced.graph.nodes if node.op == "call_function"]
    operators = [name.split(".")[1] for name in called]
    assert operators.count(last.get(key.kind, "relu")) == 5
    results = traced.module()(x)
    assert all(not torch.equal(results[0], other) for other in results[1:])


def test_kernels_are_measured_in_pytorch() -> None:
    times = measure_kernels(KEYS, runtime="torch", seconds=0.2)
    assert set(times) == set(KEYS)
    assert all(ms > 0 for ms in times.values())
