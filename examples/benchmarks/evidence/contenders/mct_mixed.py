"""Sony MCT's mixed precision under limits of weight memory, exported with fake quantisers."""

import functools
import sys
from pathlib import Path

import torch

# MCT insists on torchvision, whose operators are built for CUDA; importing it needs these named.
OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")

import model_compression_toolkit as mct  # noqa: E402

# Its exporter is written for the one that was torch's default before 2.9.
torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish  # noqa: E402

MEMORY = (1.0, 0.75, 0.5)
"""Memory of the weights, as fractions of that of plain int8."""

IMAGES = 32
"""Images that the sensitivities of its mixed precision are taken on."""


def main() -> None:
    """Quantise under each limit and write ONNX."""
    options = contender_options(__doc__)
    bundle, files = Bundle(options.bundle), []

    def representative():
        for batch in bundle.calibration(64):
            yield [batch]

    weights = sum(p.numel() for p in bundle.model().parameters() if p.dim() > 1)
    for fraction in MEMORY:
        quantised, _ = mct.ptq.pytorch_post_training_quantization(
            bundle.model(),
            representative,
            target_resource_utilization=mct.core.ResourceUtilization(
                weights_memory=fraction * weights
            ),
            core_config=mct.core.CoreConfig(
                mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(
                    num_of_images=IMAGES
                )
            ),
        )
        path = options.out / f"memory{100 * fraction:.0f}.onnx"
        mct.exporter.pytorch_export_model(
            quantised.eval(),
            save_model_path=str(path),
            repr_dataset=representative,
            serialization_format=mct.exporter.PytorchExportSerializationFormat.ONNX,
            quantization_format=mct.exporter.QuantizationFormat.FAKELY_QUANT,
        )
        files.append({"path": path.name})
    finish(options.out, files)


if __name__ == "__main__":
    main()
