from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.artifact.container import Entry, Symbols, read_container, write_container
from autocompress.artifact.packed import read_packed, write_packed
from autocompress.artifact.stored_weight import PLACES, entry_bytes
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.errors import InvalidInputError, MissingFileError
from autocompress.graph.tracing import trace
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed, pruned, seasoned, uniform
from zoo import BranchNet, ResidualNet


def _read(path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    return read_container(path.read_bytes())


def _assert_same(first: dict[str, Entry], second: dict[str, Entry]) -> None:
    assert first.keys() == second.keys()
    for name, entry in first.items():
        other = second[name]
        if isinstance(entry, torch.Tensor):
            assert isinstance(other, torch.Tensor), name
            assert torch.equal(entry, other), name
        else:
            assert isinstance(other, Symbols), name
            np.testing.assert_array_equal(entry.values, other.values, name)


def _everything(bits: int, activation_bits: int = 8) -> tuple[CompressedModel, torch.Tensor]:
    """A ResidualNet that is pruned, has lost a block and is quantised."""
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.25),
        dropped_blocks=("layer1.1",),
        layers=uniform(graph, bits, activation_bits),
    )
    return compressed(model, inputs, candidate), inputs


@pytest.mark.parametrize(("bits", "activation_bits"), [(8, 8), (4, 8), (3, 4), (2, 32), (32, 32)])
def test_the_file_rebuilds_the_model_exactly(
    tmp_path: Path, bits: int, activation_bits: int
) -> None:
    original, inputs = _everything(bits, activation_bits)
    path = tmp_path / "weights.packed"
    assert write_packed(original, path) == path.stat().st_size
    architecture = ResidualNet()
    state = {name: tensor.clone() for name, tensor in architecture.state_dict().items()}
    rebuilt = read_packed(path, architecture)
    assert rebuilt.record == original.record
    assert not rebuilt.training
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)
    for name, tensor in architecture.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    again = tmp_path / "again.packed"
    write_packed(rebuilt, again)
    _assert_same(_read(path)[0], _read(again)[0])


@pytest.mark.parametrize(
    "config",
    [
        LayerConfig(weight_bits=1, activation_bits=8),
        LayerConfig(weight_bits=4, group_size=3),
        LayerConfig(weight_bits=3, activation_bits=8, weight_format="codebook"),
        LayerConfig(weight_bits=2, weight_format="codebook", group_size=4, sparsity=0.5),
    ],
)
def test_every_format_survives_the_file(tmp_path: Path, config: LayerConfig) -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    layers = {layer.name: config for layer in graph.layers}
    original = compressed(model, inputs, Candidate(layers=layers))
    path = tmp_path / "weights.packed"
    write_packed(original, path)
    rebuilt = read_packed(path, ResidualNet())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)
    for layer in graph.layers:
        first, second = (m.quantised_weight(layer.name) for m in (original, rebuilt))
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.grid.levels, second.grid.levels)
    write_packed(rebuilt, tmp_path / "again.packed")
    _assert_same(_read(path)[0], _read(tmp_path / "again.packed")[0])


def test_dropped_branches_survive_the_file(tmp_path: Path) -> None:
    model, inputs = seasoned("BranchNet")
    layers = uniform(trace(model, inputs), 8)
    original = compressed(model, inputs, Candidate(dropped_blocks=("first",), layers=layers))
    path = tmp_path / "weights.packed"
    size = write_packed(original, path)
    assert size < write_packed(compressed(model, inputs, Candidate(layers=layers)), path) - 300
    write_packed(original, path)
    rebuilt = read_packed(path, BranchNet())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)


def test_codes_take_their_entropy(tmp_path: Path) -> None:
    for bits in (2, 3, 4):
        model, _ = _everything(bits)
        path = tmp_path / f"{bits}.packed"
        write_packed(model, path)
        entries = _read(path)[0]
        for layer in model.record.quantised:
            stored = entries[f"{layer}.weight:codes"]
            assert isinstance(stored, Symbols)
            shares = np.unique(stored.values, return_counts=True)[1] / len(stored.values)
            entropy = -(shares * np.log2(shares)).sum() * len(stored.values) / 8
            table = 3 + 2**bits / 2
            assert entropy <= entry_bytes(stored) <= 1.05 * entropy + table
            assert entry_bytes(stored) <= -(-len(stored.values) * bits // 8)


def test_what_is_not_weights_is_small(tmp_path: Path) -> None:
    path = tmp_path / "weights.packed"
    size = write_packed(_everything(4)[0], path)
    assert size - sum(entry_bytes(entry) for entry in _read(path)[0].values()) < 1500


def test_a_rebuilt_model_keeps_the_scales_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_everything(8)[0], path)
    entries, metadata = _read(path)
    scales, codes = entries["fc.weight:scales"], entries["fc.weight:codes"]
    assert isinstance(scales, torch.Tensor)
    assert isinstance(codes, Symbols)
    ones = np.full_like(codes.values, 2 ** (codes.bits - 1))  # far from the limit
    write_container(path, entries | {"fc.weight:codes": Symbols(ones, codes.bits)}, metadata)
    rebuilt = read_packed(path, ResidualNet())
    weight = rebuilt.network.fc.weight
    assert torch.equal(rebuilt.quantised_weight("fc").grid.scales, scales)
    assert torch.equal(weight, scales.expand_as(weight))


def test_tied_weights_can_be_written(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu())

    model, inputs = Tied().eval(), torch.randn(2, 4)
    original = compressed(model, inputs, Candidate())
    write_packed(original, tmp_path / "weights.packed")
    rebuilt = read_packed(tmp_path / "weights.packed", Tied())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "flipped", "tail"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_everything(8)[0], path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "garbage": np.random.default_rng(0).bytes(500),
            "half": content[: len(content) // 2],
            "flipped": content[:400] + bytes([content[400] ^ 1]) + content[401:],
            "tail": content[:-1],
        }[damage]
    )
    with pytest.raises(InvalidInputError) as caught:
        read_packed(path, ResidualNet())
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.packed"
    path.write_bytes(b"PK" + bytes(40))
    with pytest.raises(InvalidInputError, match="another kind of file"):
        read_packed(path, ResidualNet())
    write_container(path, {"a": torch.zeros(1)}, {"dropped_bricks": []})
    with pytest.raises(InvalidInputError, match="surgery record"):
        read_packed(path, ResidualNet())
    with pytest.raises(MissingFileError, match=r"none\.packed"):
        read_packed(tmp_path / "none.packed", ResidualNet())


class _Deeper(ResidualNet):
    def __init__(self) -> None:
        super().__init__(blocks=3)


class _Shallower(ResidualNet):
    """Lacks what no cut and no drop of the record names."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.Identity()


@pytest.mark.parametrize(
    "architecture",
    [
        ResidualNet(width=16),
        ResidualNet(classes=7),
        ResidualNet(blocks=1),
        _Deeper(),
        _Shallower(),
        nn.Linear(3, 3),
    ],
    ids=["wider", "other classes", "a block less", "a block more", "a norm less", "another"],
)
def test_another_architecture_is_refused(tmp_path: Path, architecture: nn.Module) -> None:
    model, inputs = seasoned("ResidualNet")
    layers = uniform(trace(model, inputs), 8)
    candidate = Candidate(dropped_blocks=("layer1.1",), layers=layers)
    path = tmp_path / "weights.packed"
    write_packed(compressed(model, inputs, candidate), path)
    with pytest.raises(InvalidInputError) as caught:
        read_packed(path, architecture)
    assert "\n" not in str(caught.value)


def _sparse(bits: int, sparsity: float, pattern: str = "unstructured") -> CompressedModel:
    """A pruned ResidualNet whose layers have masked weights."""
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    config = LayerConfig(
        weight_bits=bits,
        activation_bits=8 if bits < 32 else 32,
        sparsity=sparsity,
        sparsity_pattern=pattern,
    )
    layers = {layer.name: config for layer in graph.layers}
    return compressed(model, inputs, Candidate(pruning_ratios=pruned(graph, 0.25), layers=layers))


@pytest.mark.parametrize("bits", [32, 8, 2])
@pytest.mark.parametrize(
    ("sparsity", "pattern"),
    [(0.1, "unstructured"), (0.6, "unstructured"), (0.97, "unstructured"), (0.75, "1:4")],
)
def test_masked_weights_survive_the_file(
    tmp_path: Path, bits: int, sparsity: float, pattern: str
) -> None:
    original = _sparse(bits, sparsity, pattern)
    path = tmp_path / "weights.packed"
    write_packed(original, path)
    rebuilt = read_packed(path, ResidualNet())
    inputs = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)
    write_packed(rebuilt, tmp_path / "again.packed")
    first, second = _read(path)[0], _read(tmp_path / "again.packed")[0]
    for name in original.record.sparse:
        stored_whole = not {f"{name}.weight:{place}" for place in PLACES} & first.keys()
        if not stored_whole:  # whole layers have no places in the file, only zeros
            assert torch.equal(rebuilt.mask(name), original.mask(name))
        weight = rebuilt.network.get_submodule(name).weight
        assert int((weight != 0).sum()) <= original.record.sparse[name]
    if sparsity > 0.5 and bits > 2:
        _assert_same(first, second)


def test_masked_weights_leave_the_file(tmp_path: Path) -> None:
    sizes = {s: write_packed(_sparse(8, s), tmp_path / "w.packed") for s in (0.0, 0.5, 0.9, 0.97)}
    assert sizes[0.0] > 1.2 * sizes[0.5]
    assert sizes[0.5] > 1.4 * sizes[0.9]
    assert sizes[0.9] > sizes[0.97]


@pytest.mark.parametrize("damage", ["short", "far", "values", "elsewhere", "scales"])
def test_entries_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_sparse(32 if damage != "scales" else 8, 0.97), path)
    entries, metadata = _read(path)
    name = "layer2.0.conv2.weight"
    place = next(f"{name}:{part}" for part in PLACES if f"{name}:{part}" in entries)
    packed = entries[place]
    assert isinstance(packed, Symbols)
    if damage == "short":
        entries[place] = Symbols(packed.values[:-2], 8)
    elif damage == "far":
        entries[place] = Symbols(np.full_like(packed.values, 250), 8)
    elif damage == "values":
        entries[f"{name}:values"] = Symbols(packed.values, 8)
    elif damage == "elsewhere":
        entries["bn1.weight:mask"] = packed
    else:
        entries[f"{name}:scales"] = torch.ones(3, 1)
    write_container(path, entries, metadata)
    with pytest.raises(InvalidInputError, match="weights that fit this architecture"):
        read_packed(path, ResidualNet())
