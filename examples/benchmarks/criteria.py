"""Pruning criteria: accuracy on `val` right after surgery, for half of the channels.

    python examples/benchmarks/criteria.py --data cifar10_jpeg.npz --weights resnet56.safetensors

Each criterion removes half of the channels inside the blocks of a CIFAR ResNet, once half
of every group and once by one ranking of all groups. Batch norms are recalibrated, nothing
is trained. Random channels are drawn with several seeds; their median is given.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.cost.analytic import count_costs
from autocompress.cost.measurement import device_name
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import example_inputs, make_splits
from autocompress.transform.allocation import global_ratios
from autocompress.transform.criteria import CRITERIA
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

FRACTION = 0.5


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    model = make_model(options.depth)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    model = model.eval().to(memory_format=torch.channels_last)
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    examples = example_inputs(task, model, splits.val)[0]
    space = ac.SearchSpace.load("cnn").bind(model, examples)
    whole = count_costs(space.graph, ac.Candidate())["macs"]
    rows = []
    for name in CRITERIA:
        seeds = options.draws if name == "random" else 1
        for how in ("uniform", "global"):
            found = []
            started = time.perf_counter()
            for seed in range(options.seed, options.seed + seeds):
                with tempfile.TemporaryDirectory() as folder:
                    evaluator = Evaluator(
                        model, space.graph, task, splits, checkpoints=Path(folder), seed=seed
                    )
                    ratios = dict.fromkeys(space.pruning_choices, FRACTION)
                    if how == "global":
                        scores = evaluator.scores(name)
                        ratios = global_ratios(scores, space.pruning_choices, FRACTION)
                    candidate = ac.Candidate(pruning_ratios=ratios, criterion=name)
                    pruned = evaluator.compress(candidate)
                    evaluator.settle(pruned)
                    found.append(score(pruned, task, splits.val))
            rows.append(
                {
                    "criterion": name,
                    "allocation": how,
                    "macs": count_costs(space.graph, candidate)["macs"] / whole,
                    "accuracy": statistics.median(found),
                    "accuracies": found,
                    "seconds": time.perf_counter() - started,
                }
            )
    original = score(model, task, splits.val)
    table = Table("criterion", "allocation", "MACs", "accuracy on val", "s")
    table.add_row("(original)", "", "1.00", f"{original:.2%}", "")
    for row in rows:
        table.add_row(
            row["criterion"],
            row["allocation"],
            f"{row['macs']:.2f}",
            f"{row['accuracy']:.2%}",
            f"{row['seconds']:.1f}",
        )
    Console(width=100).print(table)
    result = {
        "device": device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "depth": options.depth,
        "seed": options.seed,
        "fraction": FRACTION,
        "images": sum(len(labels) for _, labels in splits.val),
        "original": original,
        "criteria": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a state dictionary, .safetensors")
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--draws", type=int, default=5, help="seeds of random channels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on random images")
    options = parser.parse_args()
    if options.smoke:
        options.depth, options.draws = 8, 2
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
