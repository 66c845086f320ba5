"""Which quick look ranks candidates as a full fine-tune does; which temperature suits which bits.

    python examples/benchmarks/training.py --data cifar10_jpeg.npz --weights r20.safetensors \
        --json training.json

Random joint candidates are fine-tuned fully; Kendall's tau tells how well a quick look ranks
them: the plain proxy, the proxy with batch norms recalibrated, the same with weights that all
candidates share (elastic), a fine-tune that is short, or shorter. Beside that,
narrow weights are trained at several temperatures. Cells that the JSON file holds are not run
again. Seconds are of the processor, so that they hold on a host that is shared; those of a look are
of the device that most of its cells were measured on.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.core.files import write_json
from autocompress.core.recipe import Recipe
from autocompress.cost.measurement import device_name
from autocompress.evaluation.elastic import ElasticConfig, SharedWeights, train_elastic
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.original import frozen_copy
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import example_inputs, make_splits
from autocompress.transform.compress import calibrate_grids
from charts import Axis, by_name, chart, rounded
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

WEIGHT_BITS, TEMPERATURES, SEEDS = (3, 4), (1.0, 2.0, 5.0), (0, 1, 2)
"""Of the table of temperatures; activations have 8 bits throughout."""


LENGTHS = ("shorter", "short", "full", "elastic", "narrow")
"""Options that say how many images are trained on."""

POOL = 24
"""Random candidates that shared weights are trained on; none of those that are ranked."""


class Bench:
    """The candidates, and the cells that are measured of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        model = make_model(options.depth)
        if options.weights:
            model.load_state_dict(load_file(options.weights))
        task = make_random_task() if options.smoke else make_task(options.data)
        splits = make_splits(task, seed=0)
        inputs = example_inputs(task, model.eval(), splits.val)[0]
        self.options = options
        self.space = ac.SearchSpace.load("cnn").bind(
            model, inputs, ac.Target.named("onnxruntime-cpu")
        )
        self.evaluator = Evaluator(
            frozen_copy(model, "cpu"),
            self.space.graph,
            task,
            splits,
            checkpoints=Path(tempfile.mkdtemp()),
            seed=0,
        )
        self.kept: dict[str, Any] = {"cells": {}}
        if options.json and options.json.exists():
            self.kept = json.loads(options.json.read_text())

    def cell(self, name: str, measure: Callable[[], float]) -> dict[str, Any]:
        """Return a cell's accuracy, seconds and device; measured if it is not kept."""
        cells = self.kept["cells"]
        if name not in cells:
            started = time.process_time()
            accuracy = measure()
            cells[name] = {
                "accuracy": accuracy,
                "seconds": time.process_time() - started,
                "device": device_name(),
            }
            self.write()
        return cells[name]

    def write(self) -> None:
        """Write what is known."""
        if self.options.json:
            write_json(self.options.json, self.kept)

    def plain(self, candidate: ac.Candidate) -> float:
        """Score a candidate with calibrated grids, and batch norms as they were."""
        evaluator = self.evaluator
        model = evaluator.compress(candidate)
        calibrate_grids(model, evaluator.splits.calibration, evaluator.task.run, "mse")
        return score(model, evaluator.task, evaluator.splits.proxy)

    def train(self, candidate: ac.Candidate, slot: int, images: int) -> float:
        """Fine-tune a candidate from the original's weights, and score it on all of `val`."""
        _, found = self.evaluator.train(candidate, slot=slot, images=images, inherit=False)
        self.evaluator.forget(slot)
        return found.accuracy

    def elastic(self) -> None:
        """Let proxies use weights that are shared by candidates, trained on others of the space."""
        folder = self.options.json.parent if self.options.json else Path(tempfile.mkdtemp())
        path, evaluator = folder / "elastic.safetensors", self.evaluator
        if "elastic training" in self.kept["cells"] and path.exists():
            evaluator.shared = SharedWeights.load(path, evaluator.model)
            return
        space = self.space

        def train() -> float:
            evaluator.shared = train_elastic(
                evaluator.model,
                evaluator.task,
                evaluator.compress,
                space.uniform(min(space.layer_precisions)[0], 8, 0.99),
                [space.sample(10_000 + number) for number in range(POOL)],
                ElasticConfig(images=self.options.elastic, recipe=Recipe()),
                seed=0,
            )
            evaluator.shared.save(path)
            return score(evaluator.shared.network, evaluator.task, evaluator.splits.proxy)

        self.cell("elastic training", train)

    def rank(self) -> dict[str, dict[str, Any]]:
        """Rank the random candidates by each quick look, and compare with full training."""
        options = self.options
        drawn = {seed: self.space.sample(seed) for seed in range(options.candidates)}
        looks: dict[str, Callable[[int, ac.Candidate], float]] = {
            "proxy": lambda _, c: self.plain(c),
            "proxy_bn": lambda _, c: self.evaluator.proxy(c).accuracy,
            "shorter": lambda n, c: self.train(c, 1000 + n, options.shorter),
            "short": lambda n, c: self.train(c, 1000 + n, options.short),
            "full": lambda n, c: self.train(c, n, options.full),
        }
        found: dict[str, list[dict[str, Any]]] = {}
        for look, take in looks.items():
            images = {"shorter": options.shorter, "short": options.short, "full": options.full}
            name = f"{look.removesuffix('er')} {images[look]}" if look in images else look
            found[look] = [self.cell(f"{name}/{n}", partial(take, n, c)) for n, c in drawn.items()]
        found["elastic"] = self.elastic_proxies(drawn)
        truth = [cell["accuracy"] for cell in found["full"]]
        ranked = {
            look: {
                "tau": float(kendalltau(truth, [cell["accuracy"] for cell in cells]).statistic),
                **seconds_of(cells),
            }
            for look, cells in found.items()
        }
        training = self.kept["cells"]["elastic training"]["seconds"]
        ranked["elastic"]["seconds_per_candidate"] += training / len(drawn)
        return ranked

    def elastic_proxies(self, drawn: dict[int, ac.Candidate]) -> list[dict[str, Any]]:
        """Score candidates by the proxy with shared weights."""
        self.elastic()
        found = [
            self.cell(f"elastic/{number}", lambda c=c: self.evaluator.proxy(c).accuracy)
            for number, c in drawn.items()
        ]
        self.evaluator.shared = None
        return found

    def temperatures(self) -> list[dict[str, Any]]:
        """Train narrow weights at each temperature."""
        rows, options = [], self.options
        for bits in WEIGHT_BITS:
            uniform = self.space.uniform(bits, 8, 0.0)
            for temperature in TEMPERATURES:
                distill = ac.DistillConfig(temperature=temperature)
                candidate = replace(uniform, distill=distill)
                found = [
                    self.cell(
                        f"W{bits}A8 at {temperature:g}/{seed}",
                        partial(self.train, candidate, 5000 + seed, options.narrow),
                    )["accuracy"]
                    for seed in SEEDS[: options.seeds]
                ]
                rows.append({"weight_bits": bits, "temperature": temperature, "accuracy": found})
        return rows


def seconds_of(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean seconds on the device that most cells were measured on, and its name."""
    [(device, _)] = Counter(cell["device"] for cell in cells).most_common(1)
    seconds = [cell["seconds"] for cell in cells if cell["device"] == device]
    return {"seconds_per_candidate": sum(seconds) / len(seconds), "device": device}


def main() -> None:
    """Measure the cells that are missing, print tables and write JSON."""
    options = _options()
    bench = Bench(options)
    bench.kept |= {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "images": {n: getattr(options, n) for n in LENGTHS},
        "seeds": {"candidates": options.candidates, "temperature": list(SEEDS[: options.seeds])},
    }
    bench.kept["rank_correlation"] = bench.rank()
    bench.kept["temperature_bits"] = bench.temperatures()
    bench.write()
    console = Console(width=100)
    table = Table("look", "Kendall's tau", "seconds per candidate", "on")
    for look, found in bench.kept["rank_correlation"].items():
        table.add_row(
            look, f"{found['tau']:.3f}", f"{found['seconds_per_candidate']:.1f}", found["device"]
        )
    console.print(table)
    if options.plot:
        options.plot.write_text(temperature_plot(bench.kept["temperature_bits"]))
    table = Table("bits", "temperature", "val %, by seed")
    for row in bench.kept["temperature_bits"]:
        accuracies = "  ".join(f"{100 * value:.2f}" for value in row["accuracy"])
        table.add_row(f"W{row['weight_bits']}A8", f"{row['temperature']:g}", accuracies)
    console.print(table)


def temperature_plot(rows: list[dict[str, Any]]) -> str:
    """Draw accuracy over temperature for each choice of bits, a dot for every seed."""
    points: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        dots = points.setdefault(f"W{row['weight_bits']}A8", [])
        for seed, accuracy in enumerate(row["accuracy"]):
            dots.append((row["temperature"], 100 * accuracy, f"seed {seed}"))
    low, high = rounded([y for dots in points.values() for _, y, _ in dots], 0.5)
    across = Axis(label="temperature", low=0.5, high=5.5, ticks=TEMPERATURES, form="{:g}")
    up = Axis.even("accuracy on val, %", low, max(high, low + 0.5))
    return chart(by_name(points), across, up)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a state dictionary, .safetensors")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--shorter", type=int, default=2_500, help="images of a shorter fine-tune")
    parser.add_argument("--short", type=int, default=5_000, help="images of a short fine-tune")
    parser.add_argument("--full", type=int, default=25_000, help="images of a full one")
    parser.add_argument("--elastic", type=int, default=8_000, help="images of shared training")
    parser.add_argument("--narrow", type=int, default=12_500, help="images at each temperature")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="at each temperature")
    parser.add_argument("--json", type=Path, help="where figures are written, and read again")
    parser.add_argument("--plot", type=Path, help="where the temperatures are drawn, .svg")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on random images")
    options = parser.parse_args()
    if options.smoke:
        options.depth, options.candidates, options.seeds = 8, 3, 1
        options.shorter, options.short = 32, 64
        options.full = options.narrow = options.elastic = 64
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
