import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autocompress as ac
from autocompress.core.candidate import Candidate
from autocompress.core.target import Target
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.latency_features import NAMES, LatencyFeatures
from autocompress.cost.profile import wanted_kernels
from autocompress.cost.weightless import weightless_kernels
from autocompress.graph.operations import record_operations

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from vision_transformer import VisionTransformer

CPU = Target.named("onnxruntime-cpu")


class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.pool(self.first(x).relu())).relu()
        x = nn.functional.avg_pool2d(x, kernel_size=2)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Masked(nn.Module):
    """A written-out attention with a mask, of more keys than queries, and another product."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(y).unflatten(-1, (2, 4)).transpose(1, 2)
            for layer, y in ((self.query, x[:, 1:]), (self.key, x), (self.value, x))
        )
        scores = q @ k.transpose(-2, -1) / 2.0 + torch.zeros(1, 1, 1, k.shape[-2])
        mixed = scores.softmax(-1) @ v
        return mixed @ mixed.transpose(-2, -1)


def test_pools_have_the_sizes_that_one_reads_off_the_model() -> None:
    flow = record_operations(Pools().eval(), ((torch.zeros(5, 3, 16, 16),), {}))
    found = [(str(kernel.key()), kernel.carrier) for kernel in weightless_kernels(flow)]
    assert found == [
        ("maxpool 8>8 k3x3 s2x2 g1 @8x8 b32", "first"),
        ("avgpool 12>12 k2x2 s2x2 g1 @4x4 b32", "second"),
        ("avgpool 12>12 k4x4 s4x4 g1 @1x1 b32", "second"),
    ]


def test_an_attention_reaches_from_its_first_product_to_its_second() -> None:
    flow = record_operations(Masked().eval(), ((torch.zeros(5, 9, 6),), {}))
    (kernel,) = weightless_kernels(flow)
    assert str(kernel.key()) == "attention 2>2 k4 s g1 @8x9 b32"
    kinds = [flow.operations[position].kind for position in kernel.positions]
    assert kinds[0] == kinds[-1]
    assert "softmax" in kinds
    assert kernel.carrier == "query"


def test_widths_bits_and_blocks_of_a_candidate_decide() -> None:
    model = VisionTransformer(16, 2, 4, size=16, patch=4, classes=3).eval()
    space = ac.SearchSpace.load("transformer").bind(model, torch.zeros(2, 3, 16, 16), CPU)

    def attentions(candidate: Candidate) -> dict[str, int]:
        kernels = executed_kernels(space.graph, candidate, CPU)
        return {str(key): n for key, n in kernels.items() if key.kind == "attention"}

    name = "attention {0}>{0} k4 s g1 @16x16 b{1}"
    assert attentions(space.uniform(32, 32, 0.0)) == {name.format(4, 32): 2}
    assert attentions(space.uniform(8, 8, 0.5)) == {name.format(2, 8): 2}
    half = Candidate(pruning_ratios={"layers.0.qkv": 0.25})
    assert attentions(half) == {name.format(3, 32): 1, name.format(4, 32): 1}
    assert attentions(Candidate(dropped_blocks=("layers.1",))) == {name.format(4, 32): 1}
    wanted = {str(key) for key in wanted_kernels(space.graph, space.pruning_choices, CPU)}
    assert {name.format(heads, bits) for heads in (2, 3, 4) for bits in (8, 32)} <= wanted


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "openvino-cpu"])
def test_their_times_make_up_their_columns(runtime: str) -> None:
    target, bits = Target.named(runtime), (8, 32)
    for model, column, preset, size in (
        (Pools(), "pools", "cnn", 16),
        (VisionTransformer(16, 2, 4, size=16, patch=4, classes=3), "attention", "transformer", 16),
    ):
        inputs = torch.zeros(2, 3, size, size)
        space = ac.SearchSpace.load(preset).bind(model.eval(), inputs, target)
        keys = wanted_kernels(space.graph, space.pruning_choices, target)
        times = {key: 1.0 if key.bits == 8 else 100.0 for key in keys}
        features = LatencyFeatures(space.graph, target, times)
        plain = [space.uniform(b, b, 0.0) for b in bits]
        found = features.table(plain)[:, NAMES.index(column)]
        count = len(features.executed.weightless)
        assert found.tolist() == [count, 100.0 * count]
