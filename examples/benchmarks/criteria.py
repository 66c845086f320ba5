"""Pruning criteria: accuracy on `val` right after surgery, at half the MACs.

    python examples/benchmarks/criteria.py --data cifar10_jpeg.npz --weights resnet56.safetensors

Each criterion removes channels inside the blocks of a CIFAR ResNet until about half of the
multiply-accumulates are left: once half of every group, once by one ranking of all groups,
as large a fraction as that takes. Batch norms are recalibrated, nothing is trained. Random
channels are drawn with several seeds; their median is given. With --json, what the file
holds already is not measured again.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

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

INSIDE = "*.conv1"
"""Groups inside blocks; the trunk, which all blocks share, stays whole."""

SHARE = 0.5
"""Multiply-accumulates to keep."""


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    model = make_model(options.depth)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    model = model.eval().to(memory_format=torch.channels_last)
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    space = ac.SearchSpace.load("cnn").bind(model, example_inputs(task, model, splits.val)[0])
    result = _begun(options, sum(len(labels) for _, labels in splits.val))
    rows = {(row["criterion"], row["allocation"]): row for row in result["criteria"]}
    if "original" not in result:
        result["original"] = score(model, task, splits.val)
    for name, how in product(CRITERIA, ("uniform", "global")):
        if (name, how) in rows:
            continue
        draws = options.draws if name == "random" else 1
        found, shares, started = [], [], time.perf_counter()
        for seed in range(options.seed, options.seed + draws):
            with tempfile.TemporaryDirectory() as folder:
                evaluator = Evaluator(
                    model, space.graph, task, splits, checkpoints=Path(folder), seed=seed
                )
                candidate = _halved(space, name, evaluator.scores(name), how)
                pruned = evaluator.compress(candidate)
                evaluator.settle(pruned)
                found.append(score(pruned, task, splits.val))
                shares.append(_share(space, candidate))
        rows[name, how] = {
            "criterion": name,
            "allocation": how,
            "macs": statistics.median(shares),
            "accuracy": statistics.median(found),
            "accuracies": found,
            "seconds": time.perf_counter() - started,
        }
        result["criteria"] = list(rows.values())
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("criterion", "allocation", "MACs", "accuracy on val", "s")
    table.add_row("(original)", "", "1.00", f"{result['original']:.2%}", "")
    for row in result["criteria"]:
        figures = (f"{row['macs']:.2f}", f"{row['accuracy']:.2%}", f"{row['seconds']:.1f}")
        table.add_row(row["criterion"], row["allocation"], *figures)
    Console(width=100).print(table)


def _halved(
    space: ac.BoundSpace, criterion: str, scores: Mapping[str, Any], how: str
) -> ac.Candidate:
    """Choose ratios of the groups inside blocks that keep about half of the MACs."""
    choices = {
        name: ratios for name, ratios in space.pruning_choices.items() if fnmatch(name, INSIDE)
    }
    if how == "uniform":
        return ac.Candidate(pruning_ratios=dict.fromkeys(choices, 0.5), criterion=criterion)
    ranked = (global_ratios(scores, choices, percent / 100) for percent in range(20, 81))
    candidates = [ac.Candidate(pruning_ratios=ratios, criterion=criterion) for ratios in ranked]
    return min(candidates, key=lambda candidate: abs(_share(space, candidate) - SHARE))


def _share(space: ac.BoundSpace, candidate: ac.Candidate) -> float:
    whole = count_costs(space.graph, ac.Candidate())["macs"]
    return count_costs(space.graph, candidate)["macs"] / whole


def _begun(options: argparse.Namespace, images: int) -> dict[str, Any]:
    """Read what was measured before on this host with these settings, or start anew."""
    result = {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "depth": options.depth,
        "seed": options.seed,
        "draws": options.draws,
        "images": images,
    }
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if all(before.get(key) == value for key, value in result.items()):
            return before
    return {**result, "criteria": []}


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
