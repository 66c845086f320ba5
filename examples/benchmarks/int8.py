"""Plain int8 against ONNX Runtime's own static quantiser, and weights in INT4.

    python examples/benchmarks/int8.py --data cifar10_jpeg.npz --weights resnet20.safetensors

A CIFAR ResNet-20 in W8A8 is calibrated on the same 512 training images by both: ours, and
`quantize_static` (QDQ, per channel, after `quant_pre_process`). Both files, the fp32 one, and
W4A8, whose INT4 weights are cast to INT8 or dequantised as they are, are timed in one interleaved
run. A linear layer with INT4 weights and scales for groups of inputs, for which ONNX Runtime has a
kernel, is timed alone.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.artifact.runtime import open_session
from autocompress.artifact.saturation import resolve_range, saturates
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name, measure_interleaved
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import make_splits
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

INT4_OPSET, INT4_IR = 21, 10
"""The first versions of ONNX that have INT4."""

INPUTS, OUTPUTS, GROUP_SIZE = 768, 3072, 32
"""Of the linear layer that is timed alone."""


class Calibration(CalibrationDataReader):
    """Feeds batches to the static quantiser."""

    def __init__(self, name: str, batches: list[np.ndarray]) -> None:
        self.feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> Any:
        """Return the next feed, or None."""
        return next(self.feeds, None)


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    model = make_model(8 if options.smoke else 20)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    space = ac.SearchSpace.load("cnn").bind(model.eval(), splits.val[0][0][:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        evaluator = Evaluator(
            model,
            space.graph,
            task,
            splits,
            checkpoints=folder,
            seed=options.seed,
            quantisation=resolve_range(ac.QuantisationConfig(), ac.Target.named("onnxruntime-cpu")),
        )
        paths = {}
        for kind, bits in (("fp32", (32, 32)), ("ours", (8, 8)), ("ours, W4A8", (4, 8))):
            compressed = evaluator.compress(space.uniform(*bits, 0.0))
            evaluator.settle(compressed, exact=True)
            paths[kind] = folder / kind / "model.onnx"
            ac.export(compressed, paths[kind], evaluator.inputs[0][0])
        batches = [batch[0].numpy() for batch in splits.calibration]
        paths["static quantiser"] = static_int8(paths["fp32"], batches, folder)
        paths["W4A8, no Cast"] = without_casts(paths["ours, W4A8"], folder / "int4.onnx")
        latency = measure_interleaved(
            list(paths.values()),
            [splits.val[0][0][:1].numpy()],
            threads=1,
            max_seconds=options.seconds,
            seed=options.seed,
        )
        rows = {
            kind: {
                "val_accuracy": _accuracy(path, task, splits.val),
                "accuracy": _accuracy(path, task, splits.test),
                "onnx_bytes": path.stat().st_size,
                **measured.to_json(),
            }
            for (kind, path), measured in zip(paths.items(), latency, strict=True)
        }
    table = Table("file", "val %", "test %", "ms", "x fp32", "kB")
    for kind, row in rows.items():
        accuracies = (f"{100 * row[split]:.2f}" for split in ("val_accuracy", "accuracy"))
        times = (f"{row['median_ms']:.4f}", f"{row['ratio']:.3f}")
        table.add_row(kind, *accuracies, *times, f"{row['onnx_bytes'] / 1000:.0f}")
    linear = [linear_layer(count, options) for count in (1, 4, 16)]
    for row in linear:
        table.add_section()
        for kind in ("fp32", "INT4"):
            name = f"linear, {row['rows']} rows, {kind}"
            table.add_row(
                name, "", "", f"{row[kind]['median_ms']:.4f}", f"{row[kind]['ratio']:.3f}"
            )
    Console(width=100).print(table)
    if options.json:
        versions = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
        versions |= {"python": platform.python_version(), "onnx": onnx.__version__}
        host = {"device": device_name(), "threads": 1, "versions": versions, "seed": options.seed}
        found = {"rounds": len(latency[0].samples), "files": rows, "linear": linear}
        write_json(options.json, host | found)


def static_int8(original: Path, batches: list[np.ndarray], folder: Path) -> Path:
    """Quantise an ONNX file as ONNX Runtime's documentation recommends."""
    prepared, quantised = folder / "prepared.onnx", folder / "static.onnx"
    quant_pre_process(str(original), str(prepared))
    session = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"])
    quantize_static(
        str(prepared),
        str(quantised),
        Calibration(session.get_inputs()[0].name, batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=saturates(ac.Target.named("onnxruntime-cpu")),
    )
    return quantised


def without_casts(path: Path, out: Path) -> Path:
    """Let a file dequantise INT4 weights as they are, not as INT8."""
    model = onnx.load(path)
    constants = {entry.name: entry for entry in model.graph.initializer}
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    for node in tuple(model.graph.node):
        if node.op_type == "DequantizeLinear" and node.input[0] in casts:
            weight, zeros = casts[node.input[0]].input[0], f"{node.input[0]}_zeros"
            if constants[weight].data_type == TensorProto.INT4:
                size = numpy_helper.to_array(constants[node.input[1]]).size
                zero = helper.make_tensor(zeros, TensorProto.INT4, [size], [0] * size)
                model.graph.initializer.append(zero)
                model.graph.node.remove(casts.pop(node.input[0]))
                node.input[0], node.input[2] = weight, zeros
    onnx.save(model, out)
    return out


def linear_layer(rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time a linear layer in fp32 and with INT4 weights, and compare their outputs."""
    rng = np.random.default_rng(options.seed)
    codes = rng.integers(-7, 8, (INPUTS, OUTPUTS))
    scales = rng.uniform(0.01, 0.02, (INPUTS // GROUP_SIZE, OUTPUTS)).astype(np.float32)
    weight = codes * scales.repeat(GROUP_SIZE, axis=0)
    packed = helper.make_tensor("codes", TensorProto.INT4, codes.shape, codes.ravel())
    step = {"axis": 0, "block_size": GROUP_SIZE}
    files = {
        "fp32": _product([numpy_helper.from_array(weight.astype(np.float32), "weight")], []),
        "INT4": _product(
            [packed, numpy_helper.from_array(scales, "scales")],
            [helper.make_node("DequantizeLinear", ["codes", "scales"], ["weight"], **step)],
        ),
    }
    inputs = rng.standard_normal((rows, INPUTS)).astype(np.float32)
    sessions = [open_session(content, threads=1) for content in files.values()]
    measured = measure_interleaved(sessions, [inputs], max_seconds=options.seconds / 8)
    outputs = [session.run(None, {"inputs": inputs})[0] for session in sessions]
    error = float(np.abs(outputs[1] - outputs[0]).max() / np.abs(outputs[0]).max())
    timed = {kind: m.to_json() for kind, m in zip(files, measured, strict=True)}
    return {"rows": rows, "largest_error": error, **timed}


def _product(constants: list[Any], nodes: list[Any]) -> bytes:
    nodes = [*nodes, helper.make_node("MatMul", ["inputs", "weight"], ["outputs"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("inputs", INPUTS), ("outputs", OUTPUTS))
    ]
    graph = helper.make_graph(nodes, "linear", ends[:1], ends[1:], constants)
    opset = helper.make_opsetid("", INT4_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=INT4_IR)
    content: bytes = model.SerializeToString()
    return content


def _accuracy(path: Path, task: ac.Task, batches: Any) -> float:
    return score(ac.RuntimeModule(path), task, batches, low_precision=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="the ResNet-20's, .safetensors")
    parser.add_argument("--seconds", type=float, default=40.0, help="time for all latencies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="random data, two seconds")
    options = parser.parse_args()
    if options.smoke:
        options.seconds = 2.0
    elif options.data is None or options.weights is None:
        parser.error("--data and --weights are needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
