from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.artifact.packed import read_packed, write_packed
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.quantisation import QuantisationConfig
from autocompress.cost.analytic import ENTRY_BYTES, HEADER_BYTES, SITE_BYTES, count_costs
from autocompress.cost.stored_bits import StoredBits
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from seasoned import compressed, pruned, seasoned
from zoo import PlainNet, ResidualNet

W4A8 = LayerConfig(weight_bits=4, activation_bits=8)
SAID_OF_FOUR = 4 * ENTRY_BYTES + HEADER_BYTES


def _values(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def plain() -> ModelGraph:
    return trace(PlainNet(), torch.zeros(2, 3, 16, 16))


@pytest.fixture(scope="module")
def residual() -> ModelGraph:
    return trace(ResidualNet(), torch.zeros(2, 3, 16, 16))


def test_the_unmodified_model_is_counted_by_hand(plain: ModelGraph) -> None:
    costs = count_costs(plain, Candidate())
    macs = 256 * 8 * 3 * 9 + 64 * 16 * 8 * 9 + 16 * 16 * 16 * 9 + 16 * 10
    assert costs["macs"] == macs
    assert costs["bops"] == macs * 32 * 32
    model = PlainNet()
    assert costs["parameters"] == _values(model)
    stored = [v for name, v in model.state_dict().items() if "num_batches" not in name]
    assert costs["size_bytes"] == 4 * sum(v.numel() for v in stored) + SAID_OF_FOUR


def test_pruning_leaves_what_a_narrower_model_has(plain: ModelGraph) -> None:
    candidate = Candidate(pruning_ratios={"conv1": 0.5, "conv2": 0.25})
    costs = count_costs(plain, candidate)
    narrow = [
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 12, 3, bias=False),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 16, 3),
        nn.Linear(16, 10),
    ]
    buffers = 2 * (4 + 12)
    assert costs["macs"] == 256 * 4 * 27 + 64 * 12 * 36 + 16 * 16 * 108 + 160
    assert costs["parameters"] == _values(*narrow)
    assert costs["size_bytes"] == 4 * (_values(*narrow) + buffers) + SAID_OF_FOUR


def test_bits_shrink_weights_only_and_cost_scales(plain: ModelGraph) -> None:
    costs = count_costs(plain, Candidate(layers={"conv3": W4A8}))
    base = count_costs(plain, Candidate())
    weights, macs = 16 * 16 * 9, 16 * 16 * 16 * 9
    assert (
        base["size_bytes"] - costs["size_bytes"] == 4 * weights - weights // 2 - 4 * 16 - SITE_BYTES
    )
    assert base["bops"] - costs["bops"] == macs * (32 * 32 - 4 * 8)
    assert costs["macs"] == base["macs"]


def test_packed_weights_are_rounded_up_per_layer(plain: ModelGraph) -> None:
    three = Candidate(layers={"fc": LayerConfig(weight_bits=3, activation_bits=8)})
    one = Candidate(layers={"fc": LayerConfig(weight_bits=1, activation_bits=8)})
    difference = count_costs(plain, three)["size_bytes"] - count_costs(plain, one)["size_bytes"]
    assert difference == 160 * 3 // 8 - 160 // 8


class Kinds(nn.Module):
    """One layer of every kind; input `n x 4` numbers of entries."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.conv1 = nn.Conv1d(6, 8, 3, padding=1, groups=2)
        self.up1 = nn.ConvTranspose1d(8, 6, 2, stride=2, groups=2)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(4, 4, 2)
        self.conv3 = nn.Conv3d(4, 4, (1, 2, 2))
        self.up3 = nn.ConvTranspose3d(4, 2, 1)
        self.fc = nn.Linear(2 * 4 * 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up1(self.conv1(self.table(x).transpose(1, 2)).relu())
        x = self.conv2(x.unflatten(2, (4, 2))).relu()
        x = self.conv3(self.up2(x).unsqueeze(2)).relu()
        return self.fc(self.up3(x).flatten(1))


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(weight_bits=4),
        LayerConfig(weight_bits=1),
        LayerConfig(weight_bits=3, weight_format="codebook"),
        LayerConfig(weight_bits=4, group_size=2),
    ],
)
def test_grids_take_the_bytes_that_quantised_weights_have(config: LayerConfig) -> None:
    model, numbers = Kinds().eval(), torch.randint(0, 20, (2, 4))
    graph = trace(model, numbers)
    for layer in graph.layers:
        candidate = Candidate(layers={layer.name: config})
        result = compress_model(model, graph, candidate, ((numbers,), {}))
        grid = result.quantised_weight(layer.name).grid
        weights = result.quantised_weight(layer.name).codes.numel()
        stored = -(-weights * config.weight_bits // 8) + 4 * grid.scales.numel() + SITE_BYTES
        if grid.codebook is not None:
            stored += 2**config.weight_bits
        saved = count_costs(graph, Candidate())["size_bytes"]
        saved -= count_costs(graph, candidate)["size_bytes"]
        assert saved == 4 * weights - stored, layer.name


def test_a_dropped_block_takes_its_layers_and_norms_along(residual: ModelGraph) -> None:
    block = ResidualNet().layer1[1]
    whole = count_costs(residual, Candidate())
    dropped = count_costs(residual, Candidate(dropped_blocks=("layer1.1",)))
    assert whole["parameters"] == _values(ResidualNet())
    assert whole["parameters"] - dropped["parameters"] == _values(block)
    assert whole["macs"] - dropped["macs"] == 2 * 256 * 8 * 8 * 9
    stored = 4 * (_values(block) + 2 * 16)
    assert whole["size_bytes"] - dropped["size_bytes"] == stored + 2 * ENTRY_BYTES


def test_sparsity_shrinks_the_size_and_nothing_else(plain: ModelGraph) -> None:
    config = LayerConfig(weight_bits=4, activation_bits=8, sparsity=0.5)
    dense = count_costs(plain, Candidate(layers={"conv3": W4A8}))
    sparse = count_costs(plain, Candidate(layers={"conv3": config}))
    weights = 16 * 16 * 9
    assert dense["size_bytes"] - sparse["size_bytes"] == weights // 4 - weights // 8
    assert count_costs(plain, Candidate(layers={"conv3": replace(config, sparsity=0.9)}))[
        "size_bytes"
    ] == pytest.approx(dense["size_bytes"] - weights / 2 + 0.87 * weights / 8, rel=0.01)
    assert all(dense[cost] == sparse[cost] for cost in ("macs", "bops", "parameters"))


def test_each_group_of_inputs_has_a_scale(plain: ModelGraph) -> None:
    one = count_costs(plain, Candidate(layers={"conv3": W4A8}))
    config = LayerConfig(weight_bits=4, group_size=5)  # of 16 inputs
    grouped = count_costs(plain, Candidate(layers={"conv3": config}))
    assert grouped["size_bytes"] - one["size_bytes"] == 4 * 16 * (4 - 1)


@pytest.mark.parametrize("name", ["PlainNet", "ResidualNet", "InvertedResidualNet", "Mlp"])
@pytest.mark.parametrize(
    ("bits", "sparsity", "pattern"),
    [
        (32, 0.9, "unstructured"),
        (8, 0.5, "unstructured"),
        (8, 0.97, "unstructured"),
        (4, 0.5, "2:4"),
        (2, 0.3, "unstructured"),
    ],
)
def test_the_estimate_is_what_the_file_holds(
    tmp_path: Path, name: str, bits: int, sparsity: float, pattern: str
) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    config = LayerConfig(
        weight_bits=bits,
        activation_bits=8 if bits < 32 else 32,
        sparsity=sparsity,
        sparsity_pattern=pattern,
    )
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.25), layers={layer.name: config for layer in graph.layers}
    )
    for reduce_range in ("off", "on"):
        grids = QuantisationConfig(reduce_range=reduce_range)
        result = compressed(model, inputs, candidate, quantisation=grids)
        size = write_packed(result, tmp_path / "weights.packed")
        stored = StoredBits(model, reduced=reduce_range == "on")
        estimate = count_costs(graph, result.record.candidate, stored)["size_bytes"]
        assert estimate == pytest.approx(size, rel=0.03, abs=600)


def test_a_weight_that_two_layers_share_counts_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(500, 16), nn.Linear(16, 16)
            self.head = nn.Linear(16, 500)
            self.head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.fc(self.table(ids)))

    model, ids = Tied().eval(), torch.zeros(2, 3, dtype=torch.long)
    graph = trace(model, ids)
    assert {layer.name: layer.tied for layer in graph.layers} == {
        "table": "",
        "fc": "",
        "head": "table",
    }
    costs = count_costs(graph, Candidate())
    assert costs["parameters"] == sum(p.numel() for p in model.parameters())
    path = tmp_path / "weights.packed"
    written = write_packed(compressed(model, ids, Candidate()), path)
    assert costs["size_bytes"] == pytest.approx(written, rel=0.03)
    rebuilt = read_packed(path, Tied())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(ids), model(ids), rtol=0, atol=0)
    assert rebuilt.network.head.weight is rebuilt.network.table.weight


def test_a_shared_weight_stays_as_long_as_one_block_that_holds_it() -> None:
    class Block(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.conv.weight = conv.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(x).relu()

    first = nn.Conv2d(8, 8, 3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), *(Block(first) for _ in range(2)), nn.Flatten(), nn.Linear(128, 2)
    )
    graph = trace(model, torch.randn(2, 3, 4, 4))
    whole = count_costs(graph, Candidate())["parameters"]
    assert whole == sum(p.numel() for p in model.parameters())
    for dropped in (("1",), ("2",)):
        assert count_costs(graph, Candidate(dropped_blocks=dropped))["parameters"] == whole - 8
    both = count_costs(graph, Candidate(dropped_blocks=("1", "2")))["parameters"]
    assert both == whole - 16 - first.weight.numel()
