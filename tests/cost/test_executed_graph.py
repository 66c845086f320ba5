import numpy as np
import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.artifact.executed import integer_layers
from autocompress.core.population import Population
from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.latency_features import LatencyFeatures
from autocompress.graph.operations import record_operations
from autocompress.transform.discovery import plan_grids
from zoo import ResidualNet


class Bottleneck(nn.Module):
    """A concatenation, a pool, a block that can go, and an activation that is not fused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 4, 1)
        self.right = nn.Conv2d(8, 4, 3, padding=1)
        self.block = Residual()
        self.tail = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.stem(x))
        x = torch.cat([self.left(x), nn.functional.relu(self.right(x))], 1)
        x = nn.functional.relu(self.tail(self.block(x)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(x + self.conv2(nn.functional.relu(self.conv1(x))))


SPACE = {"quantisation": {"weight_bits": [4, 8, 32], "activation_bits": [8, 32]}}


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "openvino-cpu"])
@pytest.mark.parametrize("make", [Bottleneck, ResidualNet])
def test_precisions_are_those_of_the_exported_model(make: type[nn.Module], runtime: str) -> None:
    torch.manual_seed(0)
    model, inputs = make().eval(), torch.randn(2, 3, 16, 16)
    target = Target.named(runtime)
    space = ac.SearchSpace.load(SPACE).bind(model, inputs, target)
    candidates = [space.sample(seed) for seed in range(12)]
    features = LatencyFeatures(space.graph, target, {})
    quantised, executable = features._precisions(Population.of(candidates))
    shares = {layer.name: np.ones(len(candidates)) for layer, _ in features.layers}
    dropped = {
        span.name: np.array([span.name in c.dropped_blocks for c in candidates])
        for span in features.executed.flow.spans
    }
    found = features.executed.run(quantised, executable, shares, dropped, len(candidates))
    for row, candidate in enumerate(candidates):
        compressed = ac.compress(model, candidate, inputs)
        expected = integer_layers(compressed, ((inputs,), {}), target.runtime)
        integer = {name for name, mask in found.integer.items() if mask[row]}
        assert integer == expected
        standing = {name for name, mask in found.present.items() if mask[row]}
        assert standing == {n for n, _ in compressed.network.named_modules() if n in found.present}
        # Every site is quantised once: by an operation of its own, or by what writes it.
        plan = plan_grids(record_operations(compressed.network, ((inputs,), {})), candidate.layers)
        apart = sum(mask[row] for mask, _ in found.quantised)
        assert apart <= len(plan.sites)
        assert bool(plan.sites) == bool(apart)


def test_columns_follow_the_widths_and_the_bits() -> None:
    torch.manual_seed(0)
    model, inputs = ResidualNet(width=8).eval(), torch.randn(2, 3, 16, 16)
    target = Target.named("onnxruntime-cpu")
    space = ac.SearchSpace.load("cnn").bind(model, inputs, target)
    plan = LatencyFeatures(space.graph, target, {}).plan
    levels = {name: list(ratios) for name, ratios in space.pruning_choices.items()}
    kernels: dict[KernelKey, float] = {
        key: key.operations * (1e-6 if key.bits == 8 else 4e-6)
        for key in plan.possible_kernels(levels, 4, 4)
    }
    features = LatencyFeatures(space.graph, target, kernels)
    plain, int8 = space.uniform(32, 32, 0.0), space.uniform(8, 8, 0.0)
    pruned, dropped = space.uniform(32, 32, 0.5), space.uniform(8, 8, 0.0, dropped=space.blocks)
    table = features.table([plain, int8, pruned, dropped])
    macs = sum(layer.macs for layer in space.graph.layers)
    assert table[0, 1] == pytest.approx(4e-6 * macs)
    assert table[0, [0, 2, 4, 5]].tolist() == [0.0] * 4
    assert table[1, 0] == pytest.approx(1e-6 * macs)
    assert table[1, 1] == 0.0
    assert table[2, 1] < table[0, 1]
    assert table[3, 0] < table[1, 0]
    for row, candidate in enumerate((plain, int8, pruned, dropped)):
        np.testing.assert_allclose(features.table([candidate])[0], table[row])
