"""Intel Neural Compressor's static int8 of the exported program, written as ONNX."""

import sys
from pathlib import Path

import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import (
    convert,
    get_default_static_config,
    prepare,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish, write_onnx


def main() -> None:
    """Prepare, calibrate, convert, and write ONNX."""
    options = contender_options(__doc__)
    bundle = Bundle(options.bundle)
    batches = bundle.calibration()
    batch = torch.export.Dim("batch", min=1, max=4096)
    exported = export(bundle.model(), (batches[0],), dynamic_shapes=({0: batch},))
    prepared = prepare(exported, get_default_static_config(), example_inputs=(batches[0],))
    for inputs in batches:
        prepared(inputs)
    path = write_onnx(convert(prepared), bundle, options.out / "int8.onnx")
    finish(options.out, [{"path": path.name}])


if __name__ == "__main__":
    main()
