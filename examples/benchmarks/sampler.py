"""Samplers compared on problems whose answers are known: hypervolume against evaluations.

    python examples/benchmarks/sampler.py --data DIR --json sampler.json

NAS-Bench-Macro (all 6,561 networks with accuracy and FLOPs) and the synthetic problems beside
this file, ten seeds each; the allocation against HAWQ-V3's published one; the accuracy predictor
on networks that it has not seen. Every finished cell is written at once and is not run again.
The sampler's settings were chosen on seeds 100 to 103 of NAS-Bench-Macro and on the `TUNING`
instances; seeds 0 to 9 are only reported.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import scipy
import sklearn
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau
from synthetic import REFERENCE, REPORTED, SIZES, make_problem

import autocompress as ac
from autocompress.controller.outlook import hypervolume_curve
from autocompress.controller.sampler import make_sampler
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name

BASELINES = ("random", "nsga2", "tpe", "gp", "haq")
MARKS = (50, 100, 200)
NORMAL_QUANTILE = 1.645

Cell = dict[str, object]


def search(sizes, evaluate, reference, trials, sampler) -> Cell:
    """Run one study on integer variables; return its hypervolume after each trial."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    points, seconds = [], 0.0
    for _ in range(trials):
        started = time.perf_counter()
        trial = study.ask()
        point = [trial.suggest_int(f"x{n}", 0, int(size) - 1) for n, size in enumerate(sizes)]
        seconds += time.perf_counter() - started
        points.append(point)
        study.tell(trial, evaluate(np.array([point]), observed=True)[0].tolist())
    values = evaluate(np.array(points), observed=False) * (-1.0, 1.0)
    curve = hypervolume_curve(values, np.array(reference) * (-1.0, 1.0))
    return {"curve": [round(value, 6) for value in curve], "ask_seconds": seconds / trials}


def batched(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Let a function of many points be given to the sampler."""

    def of_table(table: np.ndarray) -> np.ndarray:
        return function(table.astype(np.int64))

    of_table.batched = True
    return of_table


def macro_cells(data: Path, seeds: range, trials: int) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """List searches of NAS-Bench-Macro; hypervolumes are fractions of the true front's."""
    archive = np.load(data / "nasbench_macro.npz")
    accuracy, flops = archive["acc"].mean(axis=1) / 100.0, archive["flops"].astype(np.float64)
    places = 3 ** np.arange(7, -1, -1)
    corner = (0.8, float(flops.max()))
    table = np.stack([-accuracy, flops], axis=1)
    best = (accuracy[None, :] > accuracy[:, None]) & (flops[None, :] <= flops[:, None])
    front = table[~best.any(axis=1)]
    whole = hypervolume_curve(front, np.array([-corner[0], corner[1]]))[-1]

    def evaluate(points: np.ndarray, observed: bool) -> np.ndarray:
        return np.stack([accuracy[points @ places], flops[points @ places]], axis=1)

    def cell(make) -> Callable[[], Cell]:
        def run() -> Cell:
            found = search([3] * 8, evaluate, corner, trials, make())
            return found | {"curve": [round(value / whole, 5) for value in found["curve"]]}

        return run

    costs = {1: batched(lambda points: flops[points @ places])}
    for seed in seeds:
        variants = {
            "joint": {"cost_fns": costs, "reference": corner},
            "joint, own reference": {"cost_fns": costs},
            "joint, no cost_fns": {"reference": corner},
        }
        for name, options in variants.items():
            yield (
                f"macro/{name}/{seed}",
                cell(lambda o=options, s=seed: ac.JointSampler(**o, seed=s)),
            )
        for name in BASELINES:
            yield f"macro/{name}/{seed}", cell(lambda n=name, s=seed: baseline(n, s))


def synthetic_cells(
    seeds: range, ours: int, theirs: int
) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """List searches of the synthetic problems; hypervolumes are those of true accuracies."""
    for size in SIZES:
        for seed in seeds:
            problem = make_problem(size, seed)

            def evaluate(points: np.ndarray, observed: bool, p=problem) -> np.ndarray:
                accuracies = p.accuracies(points) if observed else p.true_accuracies(points)
                return np.stack([accuracies, p.costs(points)], axis=1)

            def cell(make, trials, p=problem, e=evaluate) -> Callable[[], Cell]:
                return lambda: search(p.choices, e, REFERENCE, trials, make())

            options = {"cost_fns": {1: batched(problem.costs)}, "reference": REFERENCE}
            known = options | {"features": batched(problem.estimates)}
            for name, given in {"joint": known, "joint, no features": options}.items():
                make = lambda g=given, s=seed: ac.JointSampler(**g, seed=s)  # noqa: E731
                yield f"synthetic {size}/{name}/{seed}", cell(make, ours)
            for name in ("random", "nsga2", "tpe"):
                make = lambda n=name, s=seed: baseline(n, s)  # noqa: E731
                yield f"synthetic {size}/{name}/{seed}", cell(make, theirs)


def baseline(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Make a sampler to compare with."""
    return make_sampler(name, seed, 0)


def predictor_cells(data: Path, seeds: range) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """List fits to 100 networks of NAS-Bench-Macro, judged on all others."""
    archive = np.load(data / "nasbench_macro.npz")
    designs, accuracy = archive["arch"].astype(np.float64), archive["acc"].mean(axis=1) / 100.0

    def cell(seed: int, count: int = 100) -> Cell:
        order = np.random.default_rng(seed).permutation(len(designs))
        known, unknown = order[:count], order[count:]
        predictor = ac.AccuracyPredictor(seed=seed).fit(designs[known], accuracy[known])
        mean, deviation = predictor.predict(designs[unknown], return_std=True)
        inside = np.abs(mean - accuracy[unknown]) <= NORMAL_QUANTILE * deviation
        tau = kendalltau(mean, accuracy[unknown]).statistic
        return {"tau": float(tau), "coverage": float(inside.mean())}

    for seed in seeds:
        yield f"predictor/100/{seed}", lambda s=seed: cell(s)


def allocation_cells(data: Path) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """List HAWQ-V3's instances: the sum of perturbations, ours and as published."""
    for network, facts in json.loads((data / "hawqv3_ilp.json").read_text()).items():
        column = {name: np.array(facts[name]) for name in facts if isinstance(facts[name], list)}
        errors = [column[f"delta_weights_{bits}bit_square"] for bits in (4, 8)]
        scores = column["Hutchinson_trace"][:, None] * np.stack(errors, axis=1)
        tables = {
            "size": np.outer(column["parameters"], (4, 8)),
            "bops": np.outer(column["bops"], (16, 64)),
            "latency": np.stack([column["latency_int4"], column["latency_int8"]], axis=1),
        }
        for instance, published in facts["reference"].items():
            cost, share = instance.split("_")
            low, high = tables[cost].sum(axis=0)
            options = (scores, tables[cost], low + float(share) * (high - low), facts["ties"])

            def cell(o=options, bits=published["bits_published"]) -> Cell:
                theirs = np.array(bits) == 8
                rows = np.arange(len(bits))
                return {
                    "ours": float(o[0][rows, ac.allocate(*o)].sum()),
                    "published": float(o[0][rows, theirs.astype(int)].sum()),
                }

            yield f"allocation/{network}/{instance}", cell


def summarise(cells: dict[str, Cell]) -> list[tuple[str, str, str]]:
    """Return rows of problem, sampler and what its cells show: median and quartiles."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key in cells:
        problem, name, _ = key.split("/")
        groups.setdefault((problem, name), []).append(key)
    rows = []
    for (problem, name), keys in groups.items():
        found = [cells[key] for key in keys]
        if problem == "allocation":
            worse = sum(cell["ours"] > cell["published"] + 1e-9 for cell in found)
            better = sum(cell["ours"] < cell["published"] - 1e-9 for cell in found)
            said = f"{len(found)} instances: {better} better than published, {worse} worse"
        elif problem == "predictor":
            said = ", ".join(f"{n} {_spread([c[n] for c in found])}" for n in ("tau", "coverage"))
        else:
            said = _curves(
                problem, found, [cells.get(f"{problem}/tpe/{k.split('/')[2]}") for k in keys]
            )
        rows.append((problem, name, said))
    return rows


def _curves(problem: str, found: list[Cell], rivals: list[Cell | None]) -> str:
    marks = [mark for mark in MARKS if mark <= min(len(cell["curve"]) for cell in found)]
    parts = [f"@{m} {_spread([c['curve'][m - 1] for c in found])}" for m in marks]
    if problem != "macro" and all(rivals):
        reached = [
            next((n + 1 for n, v in enumerate(c["curve"]) if v >= r["curve"][-1]), np.inf)
            for c, r in zip(found, rivals, strict=True)
        ]
        parts.append(f"reaches TPE's last after {_spread(reached, 0)}")
    parts.append(f"ask {np.mean([c['ask_seconds'] for c in found]) * 1e3:.0f} ms")
    return "; ".join(parts)


def _spread(values: list[float], digits: int = 3) -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Run what is missing, print a table and write JSON."""
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = range(1) if options.smoke else REPORTED
    path = options.json
    record = {"device": device_name(), "python": platform.python_version(), "cells": {}}
    record |= {m.__name__: m.__version__ for m in (np, optuna, scipy, sklearn)}
    if path and path.exists():
        record = json.loads(path.read_text())
    cells = record["cells"]
    todo = list(synthetic_cells(seeds, *((12, 12) if options.smoke else (100, 400))))
    if options.data:
        todo += macro_cells(options.data, seeds, 200)
        todo += [*predictor_cells(options.data, seeds), *allocation_cells(options.data)]
    for key, run in todo:
        if options.only in key and key not in cells:
            cells[key] = run()
            if path:
                write_json(path, record)
    table = Table("problem", "sampler", "median (quartiles)", title="hypervolume at evaluations")
    for row in summarise(cells):
        table.add_row(*row)
    Console(width=150).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of nasbench_macro.npz, hawqv3_ilp.json")
    parser.add_argument("--only", default="", help="run cells whose names contain this")
    parser.add_argument("--json", type=Path, help="where cells are kept; finished ones stay")
    parser.add_argument("--smoke", action="store_true", help="short synthetic searches")
    return parser.parse_args()


if __name__ == "__main__":
    main()
