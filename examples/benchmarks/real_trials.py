"""Samplers compared on real trials of a ResNet-20 for CIFAR-10, all at fidelity 0.

    python examples/benchmarks/real_trials.py --data cifar10_jpeg.npz \
        --weights resnet20.safetensors --profile profile.json --json real_trials.json

Accuracy is that of the proxy (untrained, on 2,000 images of `val`), latency is predicted from one
device profile of `onnxruntime-cpu`. Every sampler proposes as it does in a search, without first
designs, so that all start from nothing; those in `WITH_DESIGNS` start from a search's first
designs instead, which count as trials. Distillation is fixed, since it does not act here. Trials
are shared: a candidate is evaluated once for all samplers and seeds, and kept beside the JSON.
Every finished study is written at once and is not run again.
"""

import argparse
import functools
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.controller.computed import Sensitivities, joint_sampler
from autocompress.controller.designs import first_designs, ladder_start
from autocompress.controller.forecast import Forecast
from autocompress.controller.ladder import build_ladder
from autocompress.controller.ledger import Ledger
from autocompress.controller.outlook import hypervolume_curve
from autocompress.controller.sampler import make_sampler
from autocompress.core.files import write_json
from autocompress.core.objective import parse_objectives
from autocompress.core.seeds import derive_seed
from autocompress.cost.measurement import device_name
from autocompress.cost.resolve import load_profile
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import example_inputs, make_splits
from autocompress.graph.tracing import trace
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

SAMPLERS = ("joint", "tpe", "random", "nsga2", "gp", "haq", "joint, no features")
WITH_DESIGNS = ("joint, designs", "tpe, designs")
SEEDS = range(3)
OBJECTIVES = ("accuracy", "latency_ms")
DISTILLATION = ("temperature", "kd_weight")


class Trials:
    """The model, what is known of its candidates, and studies of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load everything, and try each choice alone."""
        model = make_model(8 if options.smoke else 20)
        if not options.smoke:
            model.load_state_dict(load_file(options.weights))
        model = model.eval().to(memory_format=torch.channels_last)
        task = make_random_task() if options.smoke else make_task(options.data)
        splits = make_splits(task, seed=0)
        graph = trace(model, example_inputs(task, model, splits.val)[0])
        target = ac.Target.named("onnxruntime-cpu", threads=1)
        space = ac.SearchSpace.load("cnn").bind_graph(graph, target, OBJECTIVES[1:])
        fixed = {n: replace(getattr(space, n), high=getattr(space, n).low) for n in DISTILLATION}
        self.space = replace(space, **fixed)
        profile = (
            load_profile(options.profile)
            if options.profile
            else ac.profile(target, space=self.space, seconds=1.0)
        )
        folder = Path(options.folder)
        self.evaluator = Evaluator(model, graph, task, splits, checkpoints=folder, seed=0)
        whole = score(model, task, splits.proxy)
        self.forecast = Forecast(
            graph, profile, parse_objectives(OBJECTIVES), (), {"accuracy": whole}, lambda: 1
        )
        self.forecast.baseline |= self.forecast.costs(ac.Candidate())
        self._path = folder / "evaluations.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._known: dict[str, float] = dict(json.loads(line) for line in lines)
        costs = functools.cache(lambda candidate: self.forecast.costs(candidate)["latency_ms"])
        start = ladder_start(self.space)
        ladder = build_ladder(self.space, start, self.deviation, costs)
        known = {key.removeprefix("deviation "): value for key, value in self._known.items()}
        self.sensitivities = Sensitivities.find(
            self.space, start, lambda candidate: known.get(candidate.to_json())
        )
        scores = {criterion: self.evaluator.scores(criterion) for criterion in space.criteria}
        self.designs = first_designs(self.space, {"latency_ms": ladder}, None, scores)

    def deviation(self, candidate: ac.Candidate) -> float:
        """Return the divergence from the original in nats."""
        return self._once(f"deviation {candidate.to_json()}", self.evaluator.deviation, candidate)

    def accuracy(self, candidate: ac.Candidate) -> float:
        """Return the accuracy at fidelity 0."""
        proxy = self.evaluator.proxy
        return self._once(candidate.to_json(), lambda c: proxy(c).accuracy, candidate)

    def _once(self, key: str, evaluate: Callable, candidate: ac.Candidate) -> float:
        if key not in self._known:
            self._known[key] = evaluate(candidate)
            with self._path.open("a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]

    def facts(self) -> dict[str, object]:
        """Return what all studies share, for the record."""
        return {
            "baseline": self.forecast.baseline,
            "reference": self.forecast.reference().tolist(),
            "parameters": len(self.space.parameters),
            "designs": len(self.designs),
            "deviations": sum(key.startswith("deviation ") for key in self._known),
            "evaluated": sum(not key.startswith("deviation ") for key in self._known),
        }

    def run(self, name: str, seed: int, trials: int) -> dict[str, object]:
        """Run one study; return its hypervolume after each trial."""
        kind = name.partition(",")[0]
        propose = functools.partial(make_sampler, kind, seed)
        if kind in ("joint", "haq"):  # they remember trials, so one serves all slots
            known = Sensitivities({}) if "no features" in name else self.sensitivities
            own = derive_seed(seed, -1, "sampler")
            lasting = (
                joint_sampler(self.space, self.forecast, known, own)
                if kind == "joint"
                else make_sampler(kind, seed, 0)
            )
            propose = lambda _: lasting  # noqa: E731
        points: list[tuple[float, float]] = []
        losses: list[list[float]] = []
        seconds = 0.0
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger.open(
                Path(folder) / "study.db", metric_names=OBJECTIVES, identity={}, seed=seed
            )
            for design in self.designs if name in WITH_DESIGNS else ():
                ledger.enqueue(self.space.to_params(design.candidate), design.origin)
            for _ in range(trials):
                started = time.perf_counter()
                ticket = ledger.ask(self.space, propose)
                seconds += time.perf_counter() - started
                costs = self.forecast.costs(ticket.candidate)
                accuracy = self.accuracy(ticket.candidate)
                points.append((accuracy, costs["latency_ms"]))
                losses.append(self.forecast.losses(costs | {"accuracy": accuracy}))
                ledger.complete(ticket, losses[-1], costs, accuracy)
            ledger.close()
        curve = hypervolume_curve(np.array(losses), self.forecast.reference())
        return {
            "curve": [round(value, 6) for value in curve],
            "points": [[round(value, 4) for value in point] for point in points],
            "ask_seconds": seconds / trials,
        }


def summarise(cells: dict[str, dict]) -> list[tuple[str, str, str, str]]:
    """Return a row for each sampler: hypervolumes, and when joint has what it ends with."""
    rows = []
    for name in dict.fromkeys(key.rpartition("/")[0] for key in cells):
        keys = [key for key in cells if key.rpartition("/")[0] == name]
        curves = {key.rpartition("/")[2]: cells[key]["curve"] for key in keys}
        marks = (len(next(iter(curves.values()))) // 3, len(next(iter(curves.values()))))
        found = [_spread([curve[mark - 1] for curve in curves.values()]) for mark in marks]
        rival = "joint, designs" if name in WITH_DESIGNS else "joint"
        needed = [
            next((n + 1 for n, v in enumerate(joint["curve"]) if v >= curve[-1]), np.inf)
            for seed, curve in curves.items()
            if (joint := cells.get(f"{rival}/{seed}"))
        ]
        rows.append((name, *found, _spread(needed, 0) if needed else "-"))
    return rows


def _spread(values: list[float], digits: int = 4) -> str:
    low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Run what is missing, print a table and write JSON."""
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = options.json
    modules = (np, optuna, torch)
    record = {"device": device_name(), "python": platform.python_version(), "cells": {}}
    record |= {module.__name__: module.__version__ for module in modules}
    if path and path.exists():
        record = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as folder:
        options.folder = path.parent if path else folder
        trials = Trials(options)
        for seed in SEEDS[: 1 if options.smoke else None]:
            for name in options.samplers:
                if (key := f"{name}/{seed}") not in record["cells"]:
                    record["cells"][key] = trials.run(name, seed, options.trials)
                    record |= trials.facts()
                    if path:
                        write_json(path, record)
    table = Table(
        "sampler", "at a third", "at the end", "joint has that after", title="hypervolume"
    )
    for row in summarise(record["cells"]):
        table.add_row(*row)
    Console(width=110).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a ResNet-20's state dictionary")
    parser.add_argument("--profile", type=Path, help="a device profile of onnxruntime-cpu")
    parser.add_argument("--json", type=Path, help="where studies are kept; finished ones stay")
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS, *WITH_DESIGNS])
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--smoke", action="store_true", help="a tiny network, random images")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.samplers = 12, ["joint", "tpe"]
    elif not (options.data and options.weights and options.profile):
        parser.error("--data, --weights and --profile are needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
