import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import Target
from autocompress.cost.latency_features import BYTE_MS, NAMES, OPERATION_MS, LatencyFeatures
from autocompress.cost.profile import wanted_kernels
from autocompress.errors import InvalidInputError
from autocompress.space.bound import BoundSpace
from zoo import Mlp

CPU = Target.named("onnxruntime-cpu")
INT8 = LayerConfig(weight_bits=8, activation_bits=8)
SPACE = {"pruning": {"ratios": [0, 0.5]}, "quantisation": {"weight_bits": [8, 32]}}


@pytest.fixture(scope="module")
def bound() -> BoundSpace:
    torch.manual_seed(0)
    return ac.SearchSpace.load(SPACE).bind(Mlp(16, 32, 8).eval(), torch.zeros(2, 16), CPU)


@pytest.fixture(scope="module")
def features(bound: BoundSpace) -> LatencyFeatures:
    """Each kernel takes as many milliseconds as it has outputs."""
    keys = wanted_kernels(bound.graph, bound.pruning_choices, CPU)
    return LatencyFeatures(bound.graph, CPU, {key: float(key.out_channels) for key in keys})


def columns(features: LatencyFeatures, candidate: Candidate) -> dict[str, float]:
    return dict(zip(NAMES, features.table([candidate])[0], strict=True))


def outputs(bound: BoundSpace) -> dict[str, int]:
    return {layer.name: layer.weight_shape[0] for layer in bound.graph.layers}


def test_a_float_network_is_the_sum_of_its_layers(
    bound: BoundSpace, features: LatencyFeatures
) -> None:
    found = columns(features, Candidate())
    count = len(bound.graph.layers)
    assert found["float layers"] == pytest.approx(sum(outputs(bound).values()))
    assert found["integer layers"] == found["quantise"] == found["dequantise"] == 0.0
    assert found["number: float layers"] == pytest.approx(count * OPERATION_MS)
    weights = sum(np.prod(layer.weight_shape) for layer in bound.graph.layers)
    assert found["number: bytes of float weights"] == pytest.approx(4 * weights * BYTE_MS)


def test_integer_layers_pay_for_what_is_converted(
    bound: BoundSpace, features: LatencyFeatures
) -> None:
    first, *others = (layer.name for layer in bound.graph.layers)
    found = columns(features, Candidate(layers={first: INT8}))
    assert found["integer layers"] == pytest.approx(outputs(bound)[first])
    assert found["float layers"] == pytest.approx(sum(outputs(bound)[name] for name in others))
    assert found["quantise"] > 0.0
    assert found["number: conversions"] >= OPERATION_MS


def test_pruned_layers_are_those_that_are_left(
    bound: BoundSpace, features: LatencyFeatures
) -> None:
    group = next(iter(bound.pruning_choices))
    whole, half = Candidate(), Candidate(pruning_ratios={group: 0.5})
    lost = columns(features, whole)["float layers"] - columns(features, half)["float layers"]
    assert lost == pytest.approx(outputs(bound)[group] / 2)


def test_a_table_has_the_rows_of_its_candidates_alone(
    bound: BoundSpace, features: LatencyFeatures
) -> None:
    candidates = [bound.sample(seed) for seed in range(5)]
    together = features.table(candidates)
    assert together.shape == (5, len(NAMES))
    alone = np.vstack([features.table([candidate]) for candidate in candidates])
    np.testing.assert_allclose(together, alone)


def test_a_graph_without_operations_is_refused(bound: BoundSpace) -> None:
    bare = dataclasses.replace(bound.graph, flow=None)
    with pytest.raises(InvalidInputError, match="trace the model again"):
        LatencyFeatures(bare, CPU, {})


class Fan(nn.Module):
    """One layer reads what forty others make, as in the last block of a large DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(3, 8) for _ in range(40))
        self.last = nn.Linear(320, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([part(x) for part in self.parts], dim=1))


def test_layers_of_dozens_of_groups_tell_all_their_widths_apart() -> None:
    torch.manual_seed(0)
    content = {"pruning": {"ratios": [0, 0.25, 0.5, 0.75], "round_to": 2}}
    space = ac.SearchSpace.load(content).bind(Fan().eval(), torch.zeros(2, 3), CPU)
    assert len(space.pruning_choices) == 40
    keys = wanted_kernels(space.graph, space.pruning_choices, CPU)
    features = LatencyFeatures(space.graph, CPU, {key: float(key.in_channels) for key in keys})
    rng = np.random.default_rng(0)
    ratios = rng.choice([0.0, 0.25, 0.5, 0.75], (30, 40))
    ratios[1::2, 8:] = ratios[::2, 8:]  # pairs that differ in the first groups alone
    candidates = [
        Candidate(pruning_ratios=dict(zip(space.pruning_choices, row, strict=True)))
        for row in ratios.tolist()
    ]
    expected = 40 * 3 + 8 * (1.0 - ratios).sum(axis=1)
    np.testing.assert_allclose(features.table(candidates)[:, NAMES.index("float layers")], expected)
    assert features.table([]).shape == (0, len(NAMES))
