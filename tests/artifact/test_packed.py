from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from autocompress.artifact.packed import pack_codes, read_packed, unpack_codes, write_packed
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.errors import InvalidInputError, MissingFileError
from autocompress.graph.tracing import trace
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed, pruned, seasoned, uniform
from zoo import ResidualNet


@given(data=st.data(), bits=st.integers(1, 8))
def test_codes_survive_packing(data: st.DataObject, bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = data.draw(st.lists(st.integers(low, high), max_size=40))
    stream = pack_codes(np.array(codes, dtype=np.int64), bits)
    assert stream.dtype == np.uint8
    assert len(stream) == -(-len(codes) * bits // 8)
    as_text = "".join(f"{code - low:0{bits}b}" for code in codes).ljust(8 * len(stream), "0")
    assert stream.tobytes() == bytes(int(as_text[i : i + 8], 2) for i in range(0, len(as_text), 8))
    assert unpack_codes(stream, bits, len(codes)).tolist() == codes


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
    first, second = load_file(path), load_file(again)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_halving_the_bits_halves_the_weights(tmp_path: Path) -> None:
    payload = {}
    for bits in (8, 4, 2):
        model, _ = _everything(bits)
        path = tmp_path / f"{bits}.packed"
        write_packed(model, path)
        tensors = load_file(path)
        codes = {name: t.numel() for name, t in tensors.items() if name.endswith(":codes")}
        payload[bits] = sum(codes.values())
        weights = [model.network.get_submodule(n).weight.numel() for n in model.record.quantised]
        assert sorted(codes.values()) == sorted(-(-count * bits // 8) for count in weights)
    assert payload[4] == pytest.approx(payload[8] / 2, rel=0.01)
    assert payload[2] == pytest.approx(payload[8] / 4, rel=0.01)


def test_a_rebuilt_model_keeps_the_scales_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_everything(8)[0], path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    scales = tensors["fc.weight:scales"]
    codes = np.ones(tensors["fc.weight:codes"].numel(), dtype=np.int64)  # far from the limit
    tensors["fc.weight:codes"] = torch.from_numpy(pack_codes(codes, 8))
    save_file(tensors, path, metadata)
    rebuilt = read_packed(path, ResidualNet())
    weight = rebuilt.network.fc.weight
    assert torch.equal(rebuilt.quantised_weight("fc").grid.scales.flatten(), scales)
    assert torch.equal(weight, scales[:, None].expand_as(weight))


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


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "header", "tail"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_everything(8)[0], path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "garbage": np.random.default_rng(0).bytes(500),
            "half": content[: len(content) // 2],
            "header": content.replace(b"dropped_blocks", b"dropped_bricks"),
            "tail": content[:-1],
        }[damage]
    )
    with pytest.raises(InvalidInputError) as caught:
        read_packed(path, ResidualNet())
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InvalidInputError, match="another safetensors file"):
        read_packed(path, ResidualNet())
    save_file({"a": torch.zeros(1)}, path, {"format": "autocompress-packed-1", "record": "{"})
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
    [(0.1, "unstructured"), (0.6, "unstructured"), (0.97, "unstructured"), (0.5, "2:4")],
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
    first, second = load_file(path), load_file(tmp_path / "again.packed")
    assert first.keys() == second.keys()
    for name in original.record.sparse:
        stored_whole = not {f"{name}.weight:mask", f"{name}.weight:counts"} & first.keys()
        if not stored_whole:  # whole layers have no places in the file, only zeros
            assert torch.equal(rebuilt.mask(name), original.mask(name))
            codes = f"{name}.weight:codes" if bits < 32 else f"{name}.weight:values"
            assert torch.equal(first[codes], second[codes])
        weight = rebuilt.network.get_submodule(name).weight
        assert int((weight != 0).sum()) <= original.record.sparse[name]


def test_the_size_of_masked_weights_is_counted_by_hand(tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet")
    layers = {
        "layer1.0.conv1": LayerConfig(sparsity=0.5),  # 8 x 8 x 3 x 3
        "layer1.0.conv2": LayerConfig(sparsity=0.95),
        "layer1.1.conv1": LayerConfig(sparsity=0.25, weight_bits=8, activation_bits=8),
        "fc": LayerConfig(sparsity=0.2, weight_bits=2, activation_bits=8),  # 10 x 16
    }
    path = tmp_path / "weights.packed"
    write_packed(compressed(model, inputs, Candidate(layers=layers)), path)
    stored = {
        name: tensor.numel() * tensor.element_size() for name, tensor in load_file(path).items()
    }
    parts = {
        (layer, name.rpartition(":")[2]): size
        for layer in layers
        for name, size in stored.items()
        if name.startswith(f"{layer}.weight:")
    }
    assert parts == {
        ("layer1.0.conv1", "mask"): 576 // 8,
        ("layer1.0.conv1", "values"): 288 * 4,
        ("layer1.0.conv2", "counts"): 8 * 7 // 8,  # 0 to 72
        ("layer1.0.conv2", "columns"): -(-29 * 7 // 8),  # 0 to 71
        ("layer1.0.conv2", "values"): 29 * 4,
        ("layer1.1.conv1", "mask"): 576 // 8,
        ("layer1.1.conv1", "codes"): 432,
        ("layer1.1.conv1", "scales"): 8 * 4,
        ("fc", "codes"): 160 * 2 // 8,
        ("fc", "scales"): 10 * 4,
    }


@pytest.mark.parametrize("damage", ["short", "columns", "counts", "elsewhere"])
def test_damaged_places_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.packed"
    write_packed(_sparse(32, 0.97), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    places = "layer2.0.conv2.weight:columns"
    if damage == "short":
        tensors[places] = tensors[places][:-2]
    elif damage == "columns":
        tensors[places] = torch.full_like(tensors[places], 255)
    elif damage == "counts":
        del tensors["layer2.0.conv2.weight:counts"]
    else:
        tensors["bn1.weight:mask"] = tensors[places].clone()
    save_file(tensors, path, metadata)
    with pytest.raises(InvalidInputError, match="weights that fit this architecture"):
        read_packed(path, ResidualNet())
