"""What Ray workers, the ledger and the samplers cost beside the trials themselves.

    python examples/benchmarks/executors.py --json executors.json

Trials are stubs that sleep, on the search space of a ResNet-20; all that a search writes of a trial
is written. They begin when every worker has shown itself. Overhead is what the time from outcome
number `workers` to the last one has beyond `(trials - workers) * seconds / workers`.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.controller.ledger import Ledger
from autocompress.controller.ray_pool import RayPool
from autocompress.controller.sampler import make_sampler
from autocompress.controller.work import Outcome, Work
from autocompress.core.evaluation import FidelityResult
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name
from cifar10_models import make_model

CASES = (("random", 2, 1.0, 60), ("joint", 2, 10.0, 40), ("random", 64, 30.0, 256))
"""Sampler, workers, seconds of a trial, trials."""

SMOKE = (("random", 1, 0.1, 4),)

LONG = 2_000
"""Trials of the study whose memory and asks are looked at."""


def prepare() -> Callable[[Work], Outcome]:
    """Return a stub of a trial: it sleeps for `work.seconds`, and says in which process."""
    return sleep


def sleep(work: Work) -> Outcome:
    """Sleep, and find an accuracy that depends on the candidate."""
    time.sleep(work.seconds or 0.0)
    bits = [layer.weight_bits for layer in work.candidate.layers.values()]
    found = FidelityResult(
        accuracy=0.9 - 0.3 / (1.0 + sum(bits) / max(1, len(bits))),
        images=1,
        trained_images=0,
        seconds=work.seconds or 0.0,
    )
    return Outcome(slot=work.slot, fidelity=0, result=found, weights=str(os.getpid()).encode())


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few short trials")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--only", type=int, help="number of the one case to run")
    options = parser.parse_args()
    space = ac.SearchSpace.load("cnn").bind(make_model(20).eval(), torch.zeros(2, 3, 32, 32))
    cases = SMOKE if options.smoke else CASES
    table = Table("sampler", "workers", "trial", "trials", "overhead", "of ideal", "median ask")
    rows: list[dict[str, Any]] = []
    for number, (sampler, workers, seconds, trials) in enumerate(cases):
        if options.only in (None, number):
            found = measure(space, sampler, workers, seconds, trials)
            rows.append(found)
            table.add_row(
                sampler,
                str(workers),
                f"{seconds:g} s",
                str(trials),
                f"{found['overhead']:.1%}",
                f"{1.0 / (1.0 + found['overhead']):.3f}",
                f"{1e3 * found['median_ask_s']:.0f} ms",
            )
    long = grow(space, 8 if options.smoke else LONG) if options.only in (None, len(cases)) else []
    console = Console(width=100)
    console.print(table)
    for point in long:
        console.print(point)
    if options.json:
        versions = {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "optuna": optuna.__version__,
        }
        host = {"device": device_name(), "cpus": os.cpu_count(), "versions": versions, "seed": 0}
        write_json(options.json, host | {"rows": rows, "long": long})


def measure(
    space: ac.BoundSpace, sampler: str, workers: int, seconds: float, trials: int
) -> dict[str, Any]:
    """Run stub trials on Ray workers, and compare their wall time with the ideal one."""
    pool = RayPool(prepare, ac.Executor(name="ray", workers=workers))
    lasting = make_sampler(sampler, 0, 0)
    ends, asks = [], []
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder), space)
        try:
            warm_up(pool, workers)
            began: dict[int, Any] = {}
            left = trials
            while left or began:
                while left and len(began) < pool.capacity:
                    started = time.monotonic()
                    ticket = ledger.ask(space, lambda _: lasting)
                    asks.append(time.monotonic() - started)
                    began[ticket.slot] = ticket
                    candidate = ticket.candidate
                    pool.submit(
                        Work(slot=ticket.slot, candidate=candidate, fidelity=0, seconds=seconds)
                    )
                    left -= 1
                outcome = pool.wait(10.0)
                if outcome is not None:
                    ends.append(time.monotonic())
                    end(ledger, began.pop(outcome.slot), outcome)
        finally:
            ledger.close()
            pool.close()
    ideal = (trials - workers) * seconds / workers
    wall = ends[-1] - ends[workers - 1]
    return {
        "sampler": sampler,
        "workers": workers,
        "trial_s": seconds,
        "trials": trials,
        "wall_s": wall,
        "overhead": wall / ideal - 1.0,
        "median_ask_s": float(np.median(asks)),
        "longest_ask_s": max(asks),
    }


def warm_up(pool: RayPool, workers: int) -> None:
    """Send short work until every worker has done some."""
    seen: set[bytes] = set()
    pending = number = 0
    while len(seen) < workers or pending:
        while len(seen) < workers and pending < workers:
            number -= 1
            pool.submit(Work(slot=number, candidate=ac.Candidate(), fidelity=0, seconds=0.2))
            pending += 1
        outcome = pool.wait(10.0)
        if outcome is not None:
            seen.add(outcome.weights)
            pending -= 1


def grow(space: ac.BoundSpace, trials: int) -> list[dict[str, Any]]:
    """Run a long study of empty trials in this process, and look at memory and asks."""
    points, asks = [], []
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder), space)
        for number in range(1, trials + 1):
            started = time.monotonic()
            ticket = ledger.ask(space, partial(make_sampler, "random", 0))
            asks.append(time.monotonic() - started)
            end(ledger, ticket, sleep(Work(slot=0, candidate=ticket.candidate, fidelity=0)))
            if number % (trials // 4) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                points.append(
                    {
                        "trials": number,
                        "memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
                        "median_ask_s": float(np.median(asks[-trials // 4 :])),
                    }
                )
        ledger.close()
    return points


def opened(folder: Path, space: ac.BoundSpace) -> Ledger:
    """Create a study in a folder."""
    names = ["accuracy", "size_bytes"]
    identity = {"space": space.fingerprint}
    return Ledger.open(folder / "study.db", metric_names=names, identity=identity, seed=0)


def end(ledger: Ledger, ticket: Any, outcome: Outcome) -> None:
    """Write what a search writes of a trial."""
    if outcome.result is None:
        ledger.fail(ticket, outcome.failure)
        return
    ledger.record(ticket, 0, outcome.result)
    accuracy = outcome.result.accuracy
    size = sum(layer.weight_bits for layer in ticket.candidate.layers.values()) + 1.0
    ledger.complete(ticket, [1.0 - accuracy, size], {"size_bytes": size}, accuracy)


if __name__ == "__main__":
    main()
