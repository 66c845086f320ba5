"""NVIDIA ModelOpt's FastNAS at several FLOPs, fine-tuned; int8 follows elsewhere."""

import sys
from pathlib import Path

import modelopt.torch.prune as mtp

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish, train, write_onnx

FLOPS = ("80%", "60%", "40%")
UNIT = 4
SPACE = {
    "nn.Conv2d": {"*": {"channel_divisor": UNIT}},
    "nn.BatchNorm2d": {"*": {"feature_divisor": UNIT}},
}
"""Channels go in fours, not in the 32 of its default, which leaves narrow networks nothing."""

SCORED = 500
"""Images of `val` that score a candidate of its search."""


def main() -> None:
    """Prune to each limit, fine-tune for an equal share of the time, and write each."""
    options = contender_options(__doc__)
    bundle, files = Bundle(options.bundle), []
    for flops in FLOPS:
        pruned, _ = mtp.prune(
            model=bundle.model(),
            mode=[("fastnas", SPACE)],
            constraints={"flops": flops},
            dummy_input=bundle.calibration(1)[0],
            config={
                "data_loader": [(batch,) for batch in bundle.calibration()],
                "collect_func": lambda batch: batch[0],
                "score_func": lambda model: bundle.val_accuracy(model.eval(), SCORED),
                "checkpoint": str(options.out / "sensitivities.pt"),
                "verbose": False,
            },
        )
        train(pruned, bundle, seconds=60 * options.minutes / len(FLOPS))
        path = write_onnx(pruned, bundle, options.out / f"flops{flops.rstrip('%')}.onnx")
        files.append({"path": path.name, "quantise": True})
    finish(options.out, files)


if __name__ == "__main__":
    main()
