"""NVIDIA ModelOpt's auto_quantize: which layers become int8, by gradients, under average bits."""

import sys
from pathlib import Path

import modelopt.torch.quantization as mtq
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish

BITS = (8.0, 10.0, 12.0)
"""Average bits of weights; what is not int8 stays in floating point."""


def main() -> None:
    """Quantise to each average, and write ONNX with QuantizeLinear and DequantizeLinear."""
    options = contender_options(__doc__)
    bundle, files = Bundle(options.bundle), []
    batches = [(x, y) for _, (x, y) in zip(range(8), bundle.batches(augment=False), strict=False)]
    for bits in BITS:
        model, _ = mtq.auto_quantize(
            bundle.model(),
            constraints={"effective_bits": bits},
            quantization_formats=[mtq.INT8_DEFAULT_CFG],
            data_loader=batches,
            forward_step=lambda model, batch: model(batch[0]),
            loss_func=lambda outputs, batch: F.cross_entropy(outputs, batch[1]),
            num_calib_steps=len(batches),
            num_score_steps=len(batches),
        )
        path = options.out / f"bits{bits:.0f}.onnx"
        torch.onnx.export(
            model.eval(),
            (bundle.calibration(1)[0],),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
        files.append({"path": path.name})
    finish(options.out, files)


if __name__ == "__main__":
    main()
