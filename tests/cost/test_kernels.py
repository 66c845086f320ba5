from collections import Counter

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import KernelPlan, executed_kernels, precision_class
from autocompress.errors import InvalidInputError
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from zoo import BranchNet, InvertedResidualNet, OptionANet, ResidualNet

CPU = Target.named("onnxruntime-cpu")


def _conv(
    channels: tuple[int, int], size: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> KernelKey:
    return KernelKey(
        kind="conv",
        in_channels=channels[0],
        out_channels=channels[1],
        kernel=(kernel, kernel),
        stride=(stride, stride),
        groups=groups,
        size=(size, size),
    )


def _add(channels: int, size: int, bits: int = 32, kernel: int = 3) -> KernelKey:
    return KernelKey(
        kind="add",
        in_channels=channels,
        out_channels=channels,
        kernel=(kernel, kernel),
        stride=(1, 1),
        size=(size, size),
        bits=bits,
    )


@pytest.fixture(scope="module")
def residual() -> ModelGraph:
    return trace(ResidualNet(), torch.zeros(2, 3, 16, 16))


def _uniform(graph: ModelGraph, weight_bits: int, activation_bits: int) -> Candidate:
    config = LayerConfig(weight_bits=weight_bits, activation_bits=activation_bits)
    return Candidate(layers={layer.name: config for layer in graph.layers})


@pytest.mark.parametrize(
    "key",
    [
        _conv((8, 16), 32, stride=2),
        _add(64, 8, bits=8),
        KernelKey(kind="linear", in_channels=64, out_channels=10, size=(197,), bits=8),
        KernelKey(kind="conv", in_channels=4, out_channels=4, kernel=(3,), stride=(1,), size=(9,)),
        KernelKey(kind="attention", in_channels=4, out_channels=4, kernel=(24,), size=(9, 7)),
    ],
)
def test_a_key_survives_its_string(key: KernelKey) -> None:
    assert KernelKey.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "conv 8>8", "pool 8>8 k s g1 @ b8", "linear 8>0 k s g1 @ b8"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="kernel key"):
        KernelKey.parse(text)


def test_operations_are_macs() -> None:
    assert _conv((8, 16), 4).operations == 8 * 16 * 9 * 16
    assert _conv((8, 8), 4, groups=8).operations == 8 * 9 * 16
    assert _add(8, 4).operations == 8 * 16
    attention = KernelKey(kind="attention", in_channels=2, out_channels=2, kernel=(5,), size=(9, 7))
    assert attention.operations == 2 * 2 * 9 * 5 * 7  # two products in each of two heads


def test_the_kernels_of_a_residual_net_are_those_one_reads_off_it(residual: ModelGraph) -> None:
    assert executed_kernels(residual, Candidate(), CPU) == {
        _conv((3, 8), 16): 1,
        _conv((8, 8), 16): 4,
        _conv((8, 16), 8, stride=2): 1,
        _conv((16, 16), 8): 3,
        _conv((8, 16), 8, kernel=1, stride=2): 1,
        _add(8, 16): 2,
        _add(16, 8): 1,
        _add(16, 8, kernel=1): 1,  # after the convolution of its shortcut
        KernelKey(
            kind="avgpool",
            in_channels=16,
            out_channels=16,
            kernel=(8, 8),
            stride=(8, 8),
            size=(1, 1),
        ): 1,
        KernelKey(kind="linear", in_channels=16, out_channels=10): 1,
    }


def test_dropping_removes_layers_and_the_add(residual: ModelGraph) -> None:
    whole = Counter(executed_kernels(residual, Candidate(), CPU))
    left = executed_kernels(residual, Candidate(dropped_blocks=("layer1.1",)), CPU)
    assert whole - Counter(left) == {_conv((8, 8), 16): 2, _add(8, 16): 1}


def test_dropping_a_branch_removes_the_add_around_it() -> None:
    graph = trace(BranchNet(8).eval(), torch.zeros(2, 3, 8, 8))
    whole, left = (
        Counter(executed_kernels(graph, Candidate(dropped_blocks=blocks), CPU))
        for blocks in ((), ("second",))
    )
    assert whole - left == {_conv((8, 8), 8): 1, _add(8, 8): 1}


def test_pruning_inside_a_block_narrows_two_layers_and_no_add(residual: ModelGraph) -> None:
    whole = Counter(executed_kernels(residual, Candidate(), CPU))
    pruned = Counter(
        executed_kernels(residual, Candidate(pruning_ratios={"layer1.0.conv1": 0.25}), CPU)
    )
    assert whole - pruned == {_conv((8, 8), 16): 2}
    assert pruned - whole == {_conv((8, 6), 16): 1, _conv((6, 8), 16): 1}


def test_pruning_the_trunk_narrows_its_adds(residual: ModelGraph) -> None:
    candidate = Candidate(pruning_ratios={"conv1": 0.5})
    kernels = executed_kernels(residual, candidate, CPU)
    assert kernels[_add(4, 16)] == 2
    assert kernels[_add(16, 8)] == kernels[_add(16, 8, kernel=1)] == 1
    assert kernels[_conv((3, 4), 16)] == 1


@pytest.mark.parametrize(
    ("weights", "activations", "executed"), [(8, 8, 8), (2, 8, 8), (4, 32, 32), (32, 32, 32)]
)
def test_bits_are_those_the_target_computes_in(
    residual: ModelGraph, weights: int, activations: int, executed: int
) -> None:
    candidate = _uniform(residual, weights, activations)
    assert {key.bits for key in executed_kernels(residual, candidate, CPU)} == {executed}
    assert precision_class(candidate, CPU) == ("int8" if executed == 8 else "float")


def test_one_integer_layer_makes_the_adds_integer(residual: ModelGraph) -> None:
    config = LayerConfig(weight_bits=8, activation_bits=8)
    kernels = executed_kernels(residual, Candidate(layers={"fc": config}), CPU)
    assert {str(key) for key in kernels if key.bits == 8} == {
        str(KernelKey(kind="linear", in_channels=16, out_channels=10, bits=8)),
        str(_add(8, 16, bits=8)),
        str(_add(16, 8, bits=8)),
        str(_add(16, 8, bits=8, kernel=1)),
    }


def test_integer_layers_inside_dropped_blocks_do_not_count(residual: ModelGraph) -> None:
    config = LayerConfig(weight_bits=8, activation_bits=8)
    candidate = Candidate(layers={"layer1.1.conv1": config}, dropped_blocks=("layer1.1",))
    assert precision_class(candidate, CPU) == "float"
    assert {key.bits for key in executed_kernels(residual, candidate, CPU)} == {32}


def test_depthwise_layers_keep_one_group_per_channel() -> None:
    graph = trace(InvertedResidualNet(), torch.zeros(2, 3, 16, 16))
    kernels = executed_kernels(graph, Candidate(), CPU)
    assert kernels[_conv((16, 16), 16, groups=16)] == 1
    name = next(group.name for group in graph.groups if group.prunable and "expand" in group.name)
    pruned = executed_kernels(graph, Candidate(pruning_ratios={name: 0.25}), CPU)
    assert pruned[_conv((12, 12), 16, groups=12)] == 1


def test_tokens_and_transposed_convolutions_have_kernels() -> None:
    tokens = trace(nn.Sequential(nn.Linear(8, 4)), torch.zeros(2, 5, 8))
    assert executed_kernels(tokens, Candidate(), CPU) == {
        KernelKey(kind="linear", in_channels=8, out_channels=4, size=(5,)): 1
    }
    transposed = trace(
        nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2)), torch.zeros(2, 4, 5, 5)
    )
    (key,) = executed_kernels(transposed, Candidate(), CPU)
    assert key.operations == transposed.layers[0].macs
    config = LayerConfig(weight_bits=8, activation_bits=8)
    for graph, bits in ((tokens, 8), (transposed, 32)):  # no runtime has integer kernels of these
        (key,) = executed_kernels(graph, Candidate(layers={"0": config}), CPU)
        assert key.bits == bits


def test_possible_kernels_cover_uniform_candidates_and_span_all_others() -> None:
    graph = trace(OptionANet(blocks=2), torch.zeros(2, 3, 16, 16))
    groups = [group.name for group in graph.groups if group.prunable]
    plan = KernelPlan(graph, CPU)
    possible = set(plan.possible_kernels(dict.fromkeys(groups, (0.25, 0.5)), 3, 3))
    spans: dict[object, list[KernelKey]] = {}
    for key in possible:
        spans.setdefault(key.family, []).append(key)
    for bits in (8, 32):
        for ratio in (0.0, 0.25, 0.5):
            config = LayerConfig(weight_bits=bits, activation_bits=bits)
            layers = {layer.name: config for layer in graph.layers}
            uniform = Candidate(pruning_ratios=dict.fromkeys(groups, ratio), layers=layers)
            assert set(executed_kernels(graph, uniform, CPU)) <= possible
            mixed = Candidate(pruning_ratios=dict.fromkeys(groups[::2], ratio), layers=layers)
            for key in executed_kernels(graph, mixed, CPU):
                for width in ("in_channels", "out_channels"):
                    known = [getattr(other, width) for other in spans[key.family]]
                    assert min(known) <= getattr(key, width) <= max(known)


def test_fewer_rows_leave_the_levels_of_outputs() -> None:
    graph = trace(nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))), torch.zeros(2, 8))
    ratios = dict.fromkeys(("0", "1"), (0.25, 0.5, 0.75))
    plan = KernelPlan(graph, CPU)
    keys = {key for key in plan.possible_kernels(ratios, 4, 2) if key.bits == 32}
    middle = {(key.in_channels, key.out_channels) for key in keys}
    assert middle == {(i, o) for i in (2, 8) for o in (2, 4, 6, 8)} | {(4, 8), (6, 8)}


def test_concatenations_of_many_groups_have_few_kernels() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList(nn.Linear(8 * (1 + i), 8) for i in range(20))
            self.out = nn.Linear(168, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for step in self.steps:
                x = torch.cat([x, step(x).relu()], 1)
            return self.out(x)

    graph = trace(Dense(), torch.zeros(2, 8))
    groups = [group.name for group in graph.groups if group.prunable]
    assert len(groups) == 20
    plan = KernelPlan(graph, CPU)
    keys = set(plan.possible_kernels(dict.fromkeys(groups, (0.25, 0.5, 0.75)), 4, 4))
    assert len(keys) <= 2 * 21 * 4 * 4
