"""NNCF's post-training int8, of the ONNX file and of OpenVINO's own representation.

Each with the number of calibration inputs that NNCF takes if none is given.
"""

import argparse
import json
import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
import openvino

SUBSET = 300


def main() -> None:
    """Quantise both, with the accurate correction of biases where it can be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    original = options.bundle / "original.onnx"
    model = onnx.load(original)
    name, inputs = model.graph.input[0].name, np.load(options.bundle / "calibration.npy")
    batches = np.split(inputs[:SUBSET], range(1, len(inputs[:SUBSET])))
    data = nncf.Dataset(batches, lambda batch: {name: batch})
    common = {"subset_size": len(batches), "fast_bias_correction": False}
    try:
        quantised = nncf.quantize(model, data, **common)
    except Exception as error:  # the accurate correction does not take every graph
        sys.stderr.write(f"with fast bias correction, since: {error}\n")
        common = {"subset_size": len(batches)}
        quantised = nncf.quantize(model, data, **common)
    onnx.save(quantised, options.out / "int8.onnx")
    converted = nncf.quantize(openvino.Core().read_model(original), data, **common)
    openvino.save_model(converted, options.out / "int8.xml", compress_to_fp16=False)
    files = [
        {"path": "int8.onnx", "targets": ["onnxruntime-cpu"]},
        {"path": "int8.xml", "targets": ["openvino-cpu"]},
    ]
    (options.out / "files.json").write_text(json.dumps(files, indent=2))


if __name__ == "__main__":
    main()
