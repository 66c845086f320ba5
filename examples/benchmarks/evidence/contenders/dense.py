"""Smaller networks of the same family, trained from scratch; int8 follows elsewhere."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish, train, write_onnx
from networks import make_network

FAMILIES = {
    "resnet20": ("resnet8", "resnet14", "resnet20x8", "resnet20x12"),
    "resnet56": ("resnet20", "resnet32", "resnet44", "resnet56x8"),
}
"""Networks of less depth or width."""


def main() -> None:
    """Train each for all of the time, and write it."""
    options = contender_options(__doc__)
    bundle, files = Bundle(options.bundle), []
    for name in FAMILIES[bundle.network]:
        path = options.out / f"{name}.onnx"
        if not path.is_file():
            model = make_network(name)
            torch.manual_seed(options.seed)
            train(model, bundle, seconds=60 * options.minutes, rate=0.1)
            write_onnx(model, bundle, path)
        files.append({"path": path.name, "quantise": True})
    finish(options.out, files)


if __name__ == "__main__":
    main()
