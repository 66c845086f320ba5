import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from autocompress.artifact.integers import ExactAdd, ExactProduct, Grid, exact_layer
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.transform.compressed import CompressedModel
from seasoned import WHOLE, compressed


def _grid(rng: np.random.Generator, *, positive: bool = False) -> Grid:
    scale = torch.tensor(rng.uniform(0.005, 0.05), dtype=torch.float32)
    return Grid(scale=scale, zero_point=0 if positive else int(rng.integers(0, 256)), top=255)


def _runtime_sums(left: Grid, right: Grid, result: Grid) -> np.ndarray:
    """Add all pairs of codes in the runtime's own kernel."""
    kinds = {"scale": np.float32, "zero": np.uint8}
    constants, names = [], []
    for name, grid in (("a", left), ("b", right), ("c", result)):
        for part, value in (("scale", grid.scale.item()), ("zero", grid.zero_point)):
            constants.append(numpy_helper.from_array(kinds[part](value), f"{name}_{part}"))
            names.append(f"{name}_{part}")
    inputs = ["a", *names[:2], "b", *names[2:4], *names[4:]]
    graph = helper.make_graph(
        [helper.make_node("QLinearAdd", inputs, ["c"], domain="com.microsoft")],
        "sums",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [256 * 256]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.UINT8, [256 * 256])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    codes = np.arange(256, dtype=np.uint8)
    feed = {"a": np.repeat(codes, 256), "b": np.tile(codes, 256)}
    return session.run(None, feed)[0].astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_all_sums_are_those_of_the_runtime(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = _grid(rng), _grid(rng, positive=seed % 2 == 0)
    result = _grid(rng, positive=seed % 2 == 0)
    codes = torch.arange(256.0)
    a = (codes.repeat_interleave(256) - left.zero_point) * left.scale
    b = (codes.repeat(256) - right.zero_point) * right.scale
    got = ExactAdd(left, right, result).run(a.reshape(64, 4, -1), b.reshape(64, 4, -1)).flatten()
    expected = _runtime_sums(left, right, result) - result.zero_point
    np.testing.assert_array_equal((got / result.scale).round().numpy(), expected)


def test_a_grid_rounds_ties_to_even_and_clips() -> None:
    grid = Grid(scale=torch.tensor(0.5), zero_point=2, top=7)
    values = torch.tensor([-9.0, -0.25, 0.25, 0.75, 1.25, 9.0])
    assert grid.round(values).tolist() == [-1.0, 0.0, 0.0, 1.0, 1.0, 2.5]
    assert values[0] == -9.0


def _linear(inputs: int, config: LayerConfig) -> tuple[CompressedModel, torch.Tensor]:
    model = nn.Sequential(nn.Linear(inputs, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(3, inputs))  # all of them the largest code
    values = torch.rand(4, inputs)
    return compressed(model, values, Candidate(layers={"0": config}), quantisation=WHOLE), values


@pytest.mark.parametrize(("inputs", "kind"), [(500, torch.float32), (600, torch.float64)])
def test_sums_of_codes_are_exact_however_large(inputs: int, kind: torch.dtype) -> None:
    model, values = _linear(inputs, LayerConfig(weight_bits=8, activation_bits=8))
    source = Grid.of(model.sites()[0][1])
    layer = exact_layer(model, "0", source, None)
    assert layer is not None
    assert layer.codes.dtype == kind  # 255 x 127 x 518 is the largest sum below 2**24
    got = layer.run(nn.functional.linear, (source.round(values), None, None), {})
    codes = source.codes(source.round(values)).long()
    bias = layer.bias.long()
    expected = (codes @ layer.codes.long().T + bias).float() * (layer.scales * source.scale)
    assert torch.equal(got, expected)


def test_scales_of_groups_have_no_integer_kernel() -> None:
    model, _ = _linear(8, LayerConfig(weight_bits=8, activation_bits=8, group_size=2))
    assert exact_layer(model, "0", Grid.of(model.sites()[0][1]), None) is None


@pytest.mark.parametrize("inner", [7, 300])
def test_products_are_rounded_once(inner: int) -> None:
    rng = np.random.default_rng(inner)
    left, right, result = _grid(rng), _grid(rng), _grid(rng)
    generator = torch.Generator().manual_seed(0)
    a = left.round(torch.randn(2, 5, inner, generator=generator))
    b = right.round(torch.randn(2, inner, 3, generator=generator))
    sums = left.codes(a).long() @ right.codes(b).long()
    scale = left.scale * right.scale
    assert torch.equal(ExactProduct(left, right, None).run(a, b), sums.float() * scale)
    rounded = (sums.float() * (scale / result.scale)).round()
    low, high = -result.zero_point, result.top - result.zero_point
    expected = rounded.clamp(low, high) * result.scale
    assert torch.equal(ExactProduct(left, right, result).run(a, b), expected)
