"""Mixed precision on a CIFAR ResNet: accuracy after calibration alone, and after training.

    python examples/benchmarks/quantisation.py --data cifar10_jpeg.npz --weights r20.safetensors \
        --json quantisation.json

Every layer has the same bits, but for the first and the last, which have 8 where the table says
so; operands of residual adds and of the pool have the bits of joins. Training is up to three epochs
with the original as teacher. Cells that the JSON file holds are not run again, however long they
were trained; what is chosen, is chosen on `val`.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.cost.measurement import device_name
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.proxy import score, settle
from autocompress.evaluation.splits import Splits, example_inputs, make_splits
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

UNTRAINED = ((8, 8, 8, 8), (4, 8, 4, 8), (3, 8, 3, 8), (3, 8, 8, 8), (2, 8, 8, 8), (4, 4, 8, 4))
TRAINED = ((4, 4, 8, 4), (3, 8, 3, 8), (4, 8, 4, 8), (2, 8, 8, 8))
"""Bits of weights, of activations, of the first and the last layer, and of joins."""

NAMES = ("weight_bits", "activation_bits", "end_bits", "join_bits")

TEACHER = ac.DistillConfig(temperature=4.0, kd_weight=0.9)


def main() -> None:
    """Measure the cells that are missing, print a table and write JSON."""
    options = _options()
    model = make_model(options.depth)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    model = model.eval().to(memory_format=torch.channels_last)
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    result = {
        "device": device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "depth": options.depth,
        "seed": options.seed,
        "temperature": TEACHER.temperature,
        "kd_weight": TEACHER.kd_weight,
        "original": _accuracy(model, task, splits),
        "cells": [],
    }
    if options.json and options.json.exists():
        result["cells"] = json.loads(options.json.read_text())["cells"]
    for epochs, cells in ((0, UNTRAINED), (options.epochs, TRAINED)):
        for bits in cells:
            cell = dict(zip(NAMES, bits, strict=True))
            same = [c for c in result["cells"] if cell.items() <= c.items()]
            if options.cells == 0 or any((c["epochs"] > 0) == (epochs > 0) for c in same):
                continue
            options.cells -= 1
            found = measure(model, task, splits, bits, epochs, options.seed)
            result["cells"].append(cell | {"epochs": epochs} | found)
            if options.json:
                options.json.write_text(json.dumps(result, indent=2) + "\n")
    table = Table(
        *(name.removesuffix("_bits") for name in NAMES), "epochs", "val", "test", "change"
    )
    table.add_row(*["32"] * 4, "", *(f"{v:.2%}" for v in result["original"].values()), "")
    for cell in result["cells"]:
        change = 100 * (cell["test"] - result["original"]["test"])
        table.add_row(
            *(str(cell[name]) for name in (*NAMES, "epochs")),
            *(f"{cell['val']:.2%}", f"{cell['test']:.2%}", f"{change:+.2f}"),
        )
    Console(width=100).print(table)


def measure(
    model: torch.nn.Module,
    task: ac.Task,
    splits: Splits,
    bits: tuple[int, int, int, int],
    epochs: float,
    seed: int,
) -> dict[str, float]:
    """Quantise the model, train it if epochs are given, and score it in float32."""
    started = time.perf_counter()
    inputs = example_inputs(task, model, splits.val)
    graph = trace(model, inputs[0])
    weights, activations, ends, joins = bits
    layers = {
        layer.name: ac.LayerConfig(weight_bits=weights, activation_bits=activations)
        for layer in graph.layers
    }
    for layer in (graph.layers[0], graph.layers[-1]):
        if ends != weights:
            layers[layer.name] = ac.LayerConfig(weight_bits=ends, activation_bits=8)
    config = ac.QuantisationConfig(join_bits=joins)
    student = compress_model(model, graph, ac.Candidate(layers=layers), inputs, quantisation=config)
    if epochs:
        length = FineTuneConfig(images=round(epochs * 50_000), learned_steps=True)
        fine_tune(student, model, task, TEACHER, length, seed=seed)
    settle(student, task, splits.recalibration, splits.calibration, exact=True, trained=epochs > 0)
    found = _accuracy(student, task, splits)
    return found | {"seconds": time.perf_counter() - started}


def _accuracy(model: torch.nn.Module, task: ac.Task, splits: Splits) -> dict[str, float]:
    parts = {"val": splits.val, "test": splits.test}
    return {name: score(model, task, part, low_precision=False) for name, part in parts.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a state dictionary, .safetensors")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where figures are written, and read again")
    parser.add_argument("--cells", type=int, default=99, help="most cells to run this time")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on random images")
    options = parser.parse_args()
    if options.smoke:
        options.depth, options.epochs = 8, 0.002
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
