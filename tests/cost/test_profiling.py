from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from autocompress.cost import profiling
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.profiling import COPIES, kernel_model, measure_kernels


def _conv(
    bits: int, width: int = 8, *, kernel: int = 3, stride: int = 1, groups: int = 1, size: int = 8
) -> KernelKey:
    return KernelKey(
        kind="conv",
        in_channels=width,
        out_channels=width,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        groups=groups,
        size=(size, size),
        bits=bits,
    )


def _linear(bits: int, size: tuple[int, ...] = ()) -> KernelKey:
    return KernelKey(kind="linear", in_channels=16, out_channels=10, size=size, bits=bits)


def _add(bits: int) -> KernelKey:
    return KernelKey(kind="add", in_channels=8, out_channels=8, size=(8, 8), bits=bits)


def _optimised(key: KernelKey, kernels: int, path: Path) -> Counter[str]:
    """Operators that the runtime makes of a kernel model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    content = kernel_model(key, kernels).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    "key",
    [
        _conv(8),
        _conv(8, stride=2),
        _conv(8, kernel=1),
        _conv(8, groups=8),
        _conv(8, size=1),
        KernelKey(
            kind="conv", in_channels=4, out_channels=4, kernel=(3,), stride=(1,), size=(9,), bits=8
        ),
    ],
    ids=str,
)
def test_integer_convolutions_are_fused_and_none_is_merged(key: KernelKey, tmp_path: Path) -> None:
    operators = _optimised(key, 4, tmp_path / "optimised.onnx")
    assert operators["QLinearConv"] == 4
    unfused = {"Conv", "Relu", "QuantizeLinear", "DequantizeLinear"}
    assert not unfused & set(operators)


@pytest.mark.parametrize(
    ("key", "operator"),
    [
        (_linear(8), "QGemm"),
        (_linear(8, (5,)), "QGemm"),
        (_add(8), "QLinearAdd"),
        (_add(32), "Add"),
    ],
    ids=str,
)
def test_other_kernels_are_fused_and_none_is_merged(
    key: KernelKey, operator: str, tmp_path: Path
) -> None:
    operators = _optimised(key, 4, tmp_path / "optimised.onnx")
    assert operators[operator] == 4
    assert not {"QuantizeLinear", "DequantizeLinear", "Gemm"} & set(operators)


@pytest.mark.parametrize(("bits", "size"), [(8, 1), (8, 3), (32, 3)])
def test_additions_are_computed_as_among_convolutions(bits: int, size: int, tmp_path: Path) -> None:
    key = KernelKey(
        kind="add",
        in_channels=16,
        out_channels=16,
        kernel=(size, size),
        stride=(1, 1),
        size=(8, 8),
        bits=bits,
    )
    few, many = (_optimised(key, kernels, tmp_path / "optimised.onnx") for kernels in (1, 4))
    operator = "QLinearConv" if bits == 8 else "Conv"
    assert few[operator] == many[operator] == 2 * (COPIES + 1)
    if bits == 8:
        assert many["QLinearAdd"] - few["QLinearAdd"] == 3
    assert not {"QuantizeLinear", "DequantizeLinear", "Add"} & set(many)


def _pool(kind: str, bits: int, *, size: int = 8, window: int = 3, stride: int = 2) -> KernelKey:
    return KernelKey(
        kind=kind,
        in_channels=32,
        out_channels=32,
        kernel=(window, window),
        stride=(stride, stride),
        size=(size, size),
        bits=bits,
    )


@pytest.mark.parametrize(
    ("key", "operator"),
    [
        (_pool("maxpool", 8), "NhwcMaxPool"),
        (_pool("maxpool", 32), "MaxPool"),
        (_pool("avgpool", 8), "QLinearAveragePool"),
        (_pool("avgpool", 32), "AveragePool"),
        (_pool("avgpool", 8, size=1, window=8, stride=8), "QLinearGlobalAveragePool"),
        (_pool("avgpool", 32, size=1, window=8, stride=8), "GlobalAveragePool"),
    ],
    ids=str,
)
def test_pools_run_among_convolutions_in_their_layout(
    key: KernelKey, operator: str, tmp_path: Path
) -> None:
    few, many = (_optimised(key, kernels, tmp_path / "optimised.onnx") for kernels in (1, COPIES))
    convolution = "QLinearConv" if key.bits == 8 else "Conv"
    assert few[convolution] == many[convolution] == COPIES
    cuts = COPIES if "MaxPool" in operator else 0  # those that cut a pixel out
    assert (few[operator], many[operator]) == (1 + cuts, COPIES + cuts)
    assert few["ReorderInput"] == many["ReorderInput"] == (1 if key.bits == 32 else 0)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(many)


def test_the_products_of_an_attention_are_computed_in_its_bits(tmp_path: Path) -> None:
    key = KernelKey(kind="attention", in_channels=2, out_channels=2, kernel=(8,), size=(9, 7))
    floats = _optimised(key, 4, tmp_path / "optimised.onnx")
    assert floats == {"FusedMatMul": 4, "Softmax": 4, "MatMul": 4}
    integers = _optimised(replace(key, bits=8), 4, tmp_path / "optimised.onnx")
    products = {"MatMulIntegerToFloat": 4, "QLinearMatMul": 4}
    assert integers == {**products, "Mul": 4, "Softmax": 4, "QuantizeLinear": 4}


def test_conversions_to_floats_are_not_moved_to_smaller_tensors(tmp_path: Path) -> None:
    key = KernelKey(kind="dequantise", in_channels=16, out_channels=16, size=(8, 8), bits=8)
    for kernels in (1, 4):
        operators = _optimised(key, kernels, tmp_path / "optimised.onnx")
        assert operators["DequantizeLinear"] == kernels
        assert operators["Add"] == COPIES
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    assert {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"} == {"x"}


def test_float_convolutions_run_with_their_activation_inside(tmp_path: Path) -> None:
    operators = _optimised(_conv(32, 16), 4, tmp_path / "optimised.onnx")
    assert operators["Conv"] + operators["FusedConv"] == 4
    assert "Relu" not in operators


def test_few_and_many_kernels_end_in_the_same_outputs() -> None:
    one, many = (kernel_model(_conv(8), kernels) for kernels in (1, COPIES))
    assert len(one.graph.output) == len(many.graph.output) == COPIES
    onnx.checker.check_model(many)


@pytest.mark.parametrize(
    "key", [_conv(32, stride=2), _conv(8, kernel=5, stride=2), _conv(32)], ids=str
)
def test_a_convolution_has_the_output_size_of_its_key(key: KernelKey) -> None:
    inferred = onnx.shape_inference.infer_shapes(kernel_model(key, 1, batch_size=2))
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }
    (conv,) = (node for node in inferred.graph.node if node.op_type == "Conv")
    assert shapes[conv.output[0]] == [2, key.out_channels, *key.size]


def test_every_kernel_gets_a_positive_time_and_more_work_takes_longer() -> None:
    seen: list[tuple[int, int]] = []
    small, large = _conv(32, 4), _conv(32, 64, size=16)
    keys = [small, large, _linear(8), _add(8), small]
    times = measure_kernels(keys, seconds=2.0, on_progress=lambda done, of: seen.append((done, of)))
    assert list(times) == keys[:4]
    assert min(times.values()) > 0
    assert times[large] > 3 * times[small]
    assert seen[-1] == (4, 4)


def test_memory_is_bounded_by_measuring_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [_conv(32, width) for width in (4, 8, 12, 16)]
    seen: list[int] = []
    monkeypatch.setattr(profiling, "CHUNK_ELEMENTS", (COPIES + 1) * keys[-1].weights)
    times = measure_kernels(keys, seconds=0.1, on_progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert list(dict.fromkeys(seen))[-2:] == [3, 4]
    assert set(times) == set(keys)


def test_models_are_the_same_in_every_process() -> None:
    first, second = (kernel_model(_conv(8), 2).SerializeToString() for _ in range(2))
    assert first == second
    weights = {
        t.name: onnx.numpy_helper.to_array(t) for t in kernel_model(_conv(8), 2).graph.initializer
    }
    assert not np.array_equal(weights["w0"], weights["w1"])
    assert weights["w0"].min() >= -127
