"""Simulated hardware: how a bit-serial array ranks the entries of HAQ's latency table.

    python examples/benchmarks/simulated.py --data haq_mobilenetv2_lut.npz

The table (Wang et al. 2019) holds the cycles of the 53 layers of MobileNetV2 at 224 x 224
for 1 to 8 bits of weights and of activations. For each layer, Kendall's tau between its 64
entries and the simulated cycles is taken; the product of the bits stands for BOPs. Arrays of
other sizes show what the agreement depends on. Nothing is fitted to the table.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parents[1]))

from autocompress.core.simulation import BUILT_IN, Accelerator
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.simulator import kernel_table

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, channels, blocks and stride of the stages of MobileNetV2 (Sandler et al. 2018)."""

ARRAYS = {
    "16 x 256 (built in)": BUILT_IN["bit-serial"],
    "16 x 64": Accelerator(lanes=64),
    "8 x 256": Accelerator(rows=8),
    "32 x 256": Accelerator(rows=32),
}


def main() -> None:
    """Compare, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the table, an .npz file")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--smoke", action="store_true", help="compare arrays with one another")
    options = parser.parse_args()
    if not (options.data or options.smoke):
        parser.error("--data is needed, but with --smoke")
    layers = mobilenet_layers()
    if options.data:
        cycles = np.load(options.data)["cycles"]
    else:
        cycles = np.array([kernel_table(Accelerator(rows=24), layer) for layer in layers])
    bits = np.outer(range(1, 9), range(1, 9))
    tables = {"product of the bits": [bits] * len(layers)}
    tables |= {name: [kernel_table(a, layer) for layer in layers] for name, a in ARRAYS.items()}
    shown = Table("rows x lanes", "mean tau", "median", "lowest", title="tau within layers")
    figures = {}
    for name, simulated in tables.items():
        taus = [
            float(kendalltau(found, expected, variant="b").statistic)
            for found, expected in zip(simulated, cycles, strict=True)
        ]
        summary = {"mean": np.mean(taus), "median": np.median(taus), "lowest": np.min(taus)}
        shown.add_row(name, *(f"{value:.3f}" for value in summary.values()))
        figures[name] = {key: float(value) for key, value in summary.items()} | {"taus": taus}
    Console(width=100).print(shown)
    if options.json:
        options.json.write_text(
            json.dumps({"layers": len(layers), "tau": figures}, indent=2) + "\n"
        )


def mobilenet_layers() -> list[KernelKey]:
    """List the layers of MobileNetV2 for images of 224 x 224, in order of execution."""
    size, channels = 112, 32
    layers = [_conv(3, channels, 3, size)]
    for expansion, outputs, blocks, stride in STAGES:
        for block in range(blocks):
            hidden = channels * expansion
            if expansion > 1:
                layers.append(_conv(channels, hidden, 1, size))
            size //= stride if block == 0 else 1
            layers.append(_conv(hidden, hidden, 3, size, groups=hidden))
            layers.append(_conv(hidden, outputs, 1, size))
            channels = outputs
    layers.append(_conv(channels, 1280, 1, size))
    return [*layers, KernelKey(kind="linear", in_channels=1280, out_channels=1000)]


def _conv(inputs: int, outputs: int, kernel: int, size: int, groups: int = 1) -> KernelKey:
    return KernelKey(
        kind="conv",
        in_channels=inputs,
        out_channels=outputs,
        kernel=(kernel, kernel),
        stride=(1, 1),
        groups=groups,
        size=(size, size),
    )


if __name__ == "__main__":
    main()
