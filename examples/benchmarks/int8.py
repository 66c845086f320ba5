"""Plain int8 against ONNX Runtime's own static quantiser, and 4-bit weights stored as such.

    python examples/benchmarks/int8.py --data cifar10_jpeg.npz --weights resnet20.safetensors

A CIFAR ResNet-20 in W8A8 is calibrated on the same 512 training images by both: ours, and
`quantize_static` (QDQ, per channel, after `quant_pre_process`). Both files, the fp32 one, and
W4A8 with its weights as INT8 and as INT4 initialisers are timed in one interleaved run.
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
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name, measure_interleaved
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import make_splits
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

INT4_OPSET = 21


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
            model, space.graph, task, splits, checkpoints=folder, seed=options.seed
        )
        paths = {}
        for kind, bits in (("fp32", (32, 32)), ("ours", (8, 8)), ("W4A8 as INT8", (4, 8))):
            compressed = evaluator.compress(space.uniform(*bits, 0.0))
            evaluator.settle(compressed, exact=True)
            paths[kind] = folder / kind / "model.onnx"
            ac.export(compressed, paths[kind], evaluator.inputs[0][0])
        batches = [batch[0].numpy() for batch in splits.calibration]
        paths["static quantiser"] = static_int8(paths["fp32"], batches, folder)
        paths["W4A8 as INT4"] = int4_weights(paths["W4A8 as INT8"], folder / "int4.onnx")
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
    Console(width=100).print(table)
    if options.json:
        versions = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
        versions |= {"python": platform.python_version(), "onnx": onnx.__version__}
        host = {"device": device_name(), "threads": 1, "versions": versions, "seed": options.seed}
        write_json(options.json, host | {"rounds": len(latency[0].samples), "files": rows})


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
    )
    return quantised


def int4_weights(path: Path, out: Path) -> Path:
    """Store the 4-bit weights of a file in INT4."""
    model = onnx.load(path)
    model.opset_import[0].version, model.ir_version = INT4_OPSET, 10
    constants = {entry.name: entry for entry in model.graph.initializer}
    for node in model.graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is None or weight.data_type not in (TensorProto.INT8, TensorProto.INT4):
            continue
        for name in (node.input[0], node.input[2]):
            if constants[name].data_type == TensorProto.INT8:
                codes = numpy_helper.to_array(constants[name])
                entry = helper.make_tensor(name, TensorProto.INT4, codes.shape, codes.ravel())
                constants[name].CopyFrom(entry)
    onnx.save(model, out)
    return out


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
