"""Torch-Pruning at several ratios by group magnitude, fine-tuned; int8 follows elsewhere."""

import sys
from pathlib import Path

import torch
import torch_pruning as tp
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundle import Bundle, contender_options, finish, train, write_onnx

RATIOS = (0.15, 0.3, 0.5, 0.65)
TRUNK = ("conv2", "query", "key", "value", "project", "fc2")
"""Layers of blocks whose outputs meet others, of the same width each."""

UNIT = 4


def main() -> None:
    """Prune, fine-tune for an equal share of the time, and write each."""
    options = contender_options(__doc__)
    bundle, files = Bundle(options.bundle), []
    for ratio in RATIOS:
        model = pruned(bundle, ratio)
        train(model, bundle, seconds=60 * options.minutes / len(RATIOS))
        path = write_onnx(model, bundle, options.out / f"pruned{100 * ratio:.0f}.onnx")
        files.append({"path": path.name, "quantise": True})
    finish(options.out, files)


def pruned(bundle: Bundle, ratio: float) -> nn.Module:
    """Prune all coupled groups; where the result does not run, those inside blocks alone."""
    try:
        return cut(bundle, ratio, inside=False)
    except (RuntimeError, IndexError, ValueError) as error:
        print(f"ratio {ratio}: only inside blocks, since: {error}")
        return cut(bundle, ratio, inside=True)


def cut(bundle: Bundle, ratio: float, *, inside: bool) -> nn.Module:
    """Remove a fraction of the channels, those of the least magnitude in one ranking."""
    model, example = bundle.model(), bundle.calibration(2)[0]
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    last = [*layers.values()][-1]
    trunk = [m for n, m in layers.items() if n == "conv1" or n.split(".")[-1] in TRUNK]
    heads = {m.qkv: m.heads for m in model.modules() if hasattr(m, "qkv")}
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        global_pruning=True,
        max_pruning_ratio=0.9,
        round_to=UNIT,
        ignored_layers=[last, *(trunk if inside else ())],
        num_heads=heads,
    )
    pruner.step()
    with torch.no_grad():
        model(example)
    return model


if __name__ == "__main__":
    main()
