"""How long the joint sampler takes to propose a trial of ResNet-56, fitting included.

    python examples/benchmarks/ask_time.py --json docs/benchmarks/ask_time.json

The space has 113 parameters. Accuracies are a function of the multiply-accumulates with noise,
and kernels take a time in proportion to theirs, so that nothing is trained or measured: only the
sampler's own time counts, in seconds of one processor.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from rich.console import Console

import autocompress as ac
from autocompress.controller.computed import Sensitivities, joint_sampler
from autocompress.controller.forecast import Forecast
from autocompress.controller.sampler import distributions
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.cost.analytic import count_costs
from autocompress.cost.kernels import KernelPlan
from autocompress.cost.measurement import device_name
from autocompress.cost.profile import DeviceProfile

sys.path.insert(0, str(Path(__file__).parents[1]))
from cifar10_models import make_model

ACCURACY = 0.9
STEP_MS = {8: 1e-9, 32: 4e-9}
"""Milliseconds per operation of a kernel, by its bits."""


def problem() -> tuple[ac.BoundSpace, Forecast]:
    """Bind the space, and make up a device."""
    target = ac.Target.named("onnxruntime-cpu")
    space = ac.SearchSpace.load("cnn").bind(
        make_model(56).eval(), torch.zeros(2, 3, 32, 32), target
    )
    keys = KernelPlan(space.graph, target).possible_kernels(space.pruning_choices, 4, 4)
    profile = DeviceProfile(
        target=target,
        device="made up",
        versions={},
        created="2026-01-01T00:00:00+00:00",
        kernels={key: 1e-4 + key.operations * STEP_MS[key.bits] for key in keys},
    )
    baseline = count_costs(space.graph, ac.Candidate())
    baseline |= {"accuracy": ACCURACY, "proxy_accuracy": ACCURACY, "latency_ms": 1.0}
    objectives = parse_objectives(["accuracy", "latency_ms"])
    limits = parse_constraints({"latency_ms": "50%"})
    return space, Forecast(space.graph, profile, objectives, limits, baseline, lambda: 1)


def run(told: int, asked: int) -> list[float]:
    """Return the processor seconds of each ask, after some trials that were told."""
    space, forecast = problem()
    whole = forecast.baseline["macs"]
    rng = np.random.default_rng(0)

    def values(candidate: ac.Candidate) -> list[float]:
        costs = forecast.costs(candidate)
        lost = 0.2 * (1.0 - costs["macs"] / whole) ** 2 + 0.002 * rng.random()
        return forecast.losses(costs | {"accuracy": ACCURACY - lost})

    whole_numbers = [p for p in space.parameters if p.kind == "int"]
    tables = {p.name: np.linspace(0.0, rng.random(), int(p.high) + 1) for p in whole_numbers}
    sampler = joint_sampler(space, forecast, Sensitivities(tables), seed=0)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    ranges = distributions(space)
    for seed in range(told):
        candidate = space.sample(seed)
        study.add_trial(
            optuna.trial.create_trial(
                params=space.to_params(candidate), distributions=ranges, values=values(candidate)
            )
        )
    seconds = []
    for _ in range(asked):
        start = time.process_time()
        trial = study.ask(ranges)
        seconds.append(time.process_time() - start)
        study.tell(trial, values(space.from_params(trial.params)))
    return seconds


def main() -> None:
    """Time the asks of a run, and some after many trials."""
    parser = argparse.ArgumentParser(description="the sampler's own time on ResNet-56")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    found = {}
    for told, asked in ((0, 12),) if options.smoke else ((0, 100), (2000, 4)):
        seconds = run(told, asked)
        found[f"{asked} after {told}"] = {
            "mean": round(float(np.mean(seconds)), 4),
            "median": round(float(np.median(seconds)), 4),
            "most": round(max(seconds), 4),
        }
        Console().print(
            f"{asked} asks after {told} trials: mean {np.mean(seconds):.3f} s of processor time, "
            f"most {max(seconds):.3f} s"
        )
    if options.json:
        record = {
            "device": device_name("onnxruntime"),
            "python": platform.python_version(),
            "seconds": found,
        }
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
