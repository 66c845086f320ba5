"""Latency model: predictions of held-out joint candidates, beside simpler ones.

    python examples/benchmarks/latency_model.py --data DIR --minutes 7 [--json FILE]

For two CIFAR ResNets and a MobileNetV2-like network with random weights, on ONNX Runtime and
OpenVINO, one thread: candidates are drawn by `space.sample`, written, and timed in turns with
the original; the held-out ones are timed again later. Kernels are measured, the model is
fitted to the first candidates and judged on the held-out ones, by ratios to the original.
All is kept in DIR: run it again until nothing is left to measure. Batches in which the
original runs 1.3 times slower than at its best are measured again.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.artifact.session import bound_call, open_model
from autocompress.cost.analytic import count_costs
from autocompress.cost.latency_features import PRIOR
from autocompress.cost.learned import fit_latency
from autocompress.cost.measurement import device_name
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.evaluation.networks import DISTURBED, NetworkWriter, ratios_to_first
from autocompress.graph.inputs import ModelInputs
from cifar10_models import MobileNet, make_model

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet20": lambda: make_model(20),
    "resnet56": lambda: make_model(56),
    "mobilenet": lambda: _settled(MobileNet()),
}
RUNTIMES = ("onnxruntime-cpu", "openvino-cpu")
HELD_OUT, TOGETHER = 10_000, 10
"""First seed of the held-out candidates, and candidates of one run."""

VISITS = 4
"""Times that a held-out candidate is opened and timed anew for one measurement.

The same file runs up to a few percent faster or slower each time it is opened; the median of
all visits is what a measurement says. Candidates to fit to are visited half as often.
"""


def main() -> None:
    """Measure for a while, judge what is there, print a table and write JSON."""
    options = _options()
    stop = time.monotonic() + 60 * options.minutes
    train = range(8 if options.smoke else options.train)
    test = range(HELD_OUT, HELD_OUT + (6 if options.smoke else 100))
    models = ["resnet20"] if options.smoke else list(MODELS)
    figures: dict[str, Any] = {}
    pairs = [(n, r) for n in models for r in RUNTIMES[: 1 if options.smoke else 2]]
    turns = [
        (seeds, repeat, visit)
        for repeat in (0, 1)
        for visit in range(1 if options.smoke else VISITS)
        for seeds in ((test if repeat or visit >= VISITS // 2 else (*test, *train)),)
    ]
    studies = {name: Study(options.data / name, name) for name in models}
    for seeds, repeat, visit in () if options.judge else turns:
        for name, runtime in pairs:
            if time.monotonic() < stop:
                studies[name].measure(runtime, seeds, (repeat, visit), stop)
    for name, runtime in pairs:
        judged = studies[name].judge(runtime, train, test, options.kernel_seconds)
        if judged:
            figures[f"{name}, {runtime}"] = judged
    columns = ("held out", "within 10 %", "median error", "tau", "tau of repeats")
    table = Table("model, runtime", "predicted by", *columns, title="latency, ratio to fp32")
    for where, judged in figures.items():
        for by, score in judged["predictors"].items():
            table.add_row(where, by, str(judged["held_out"]), *_cells(score, judged))
    Console(width=120).print(table)
    host = {"device": device_name(), "threads": 1, "python": platform.python_version()}
    versions = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
    if options.json:
        document = host | versions | {"results": figures}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


class Study:
    """One model: its space, its files and what was measured of them."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.folder, self.model = folder, MODELS[name]().eval()
        inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.image, self.examples = inputs[:1].numpy(), ModelInputs.of(inputs)
        target = ac.Target.named(RUNTIMES[0])
        self.space = ac.SearchSpace.load("cnn").bind(self.model, inputs, target)

    def candidate(self, seed: int) -> ac.Candidate:
        """Return the candidate of a seed; -1 is the original."""
        return self.space.uniform(32, 32, 0.0) if seed < 0 else self.space.sample(seed)

    def call(self, runtime: str, seed: int) -> Callable[[], object]:
        """Return a call that runs a candidate; -1 is the original."""
        path = self.folder / runtime / f"{seed}.onnx"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            target = ac.Target.named(runtime)
            writer = NetworkWriter(self.model, self.space, self.examples, target)
            writer.write(self.candidate(seed), path)
        session = open_model(path, ac.Target.named(runtime))
        return bound_call(session, {session.get_inputs()[0].name: self.image})

    def rows(self, runtime: str) -> list[dict[str, float]]:
        """Read what was measured."""
        path = self.folder / f"{runtime}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def measure(
        self, runtime: str, seeds: Sequence[int], turn: tuple[int, int], stop: float
    ) -> None:
        """Time candidates, in a repeat's visit, until all are done or the time is over."""
        rows = self.rows(runtime)
        known = {int(r["seed"]) for r in rows if (r["repeat"], r.get("visit", 0)) == turn}
        todo = [seed for seed in seeds if seed not in known]
        best = min((row["ref"] for row in rows), default=np.inf)
        reference = self.call(runtime, -1) if todo else None
        while todo and reference and time.monotonic() < stop:
            batch = todo[:TOGETHER]
            calls = [reference, *(self.call(runtime, seed) for seed in batch)]
            ratios, ref = ratios_to_first(calls, threads=1)
            best = min(best, ref)
            if ref > DISTURBED * best:
                continue
            with (self.folder / f"{runtime}.jsonl").open("a") as log:
                for seed, ratio in zip(batch, ratios, strict=True):
                    row = {"seed": seed, "repeat": turn[0], "visit": turn[1], "ratio": ratio}
                    row["ref"] = ref
                    log.write(json.dumps(row | {"t": time.time()}) + "\n")
            todo = todo[TOGETHER:]

    def judge(
        self, runtime: str, train: Sequence[int], test: Sequence[int], seconds: float
    ) -> dict[str, Any]:
        """Fit to the candidates of `train`, and compare predictions with those of `test`."""
        visits: dict[tuple[int, int], list[float]] = {}
        for row in self.rows(runtime):
            visits.setdefault((int(row["repeat"]), int(row["seed"])), []).append(row["ratio"])
        ratios: list[dict[int, float]] = [{}, {}]
        for (repeat, seed), seen in visits.items():
            ratios[repeat][seed] = float(np.median(seen))
        fitted = [seed for seed in train if seed in ratios[0]]
        held = [seed for seed in test if seed in ratios[0]]
        if len(fitted) < 6 or len(held) < 6:
            return {}
        profile = self.profile(runtime, seconds)
        features = profile._estimates(self.space).features
        assert features is not None
        candidates = [self.candidate(seed) for seed in (*fitted, *held)]
        table = features.table(candidates)
        n, measured = len(fitted), np.array([ratios[0][seed] for seed in (*fitted, *held)])
        counts = [count_costs(self.space.graph, c) for c in candidates]
        simple = {
            "constant": np.ones(len(candidates)),
            "MACs": np.array([c["macs"] for c in counts], float),
            "BOPs": np.array([c["bops"] for c in counts], float),
            "additive table": np.array([profile.kernel_ms(self.space, c) for c in candidates]),
            "executed graph, not fitted": table @ PRIOR,
        }
        found = {}
        for name, values in simple.items():
            scaled = values[n:] * np.median(measured[:n] / values[:n])
            found[name] = _score(scaled, measured[n:])
        model = fit_latency(table[:n], measured[:n], PRIOR)
        predicted, spread = model.predict(table[n:])
        found["latency model"] = _score(predicted, measured[n:])
        inside = np.abs(predicted - measured[n:]) <= 2 * spread
        start = time.process_time()
        model.predict(features.table([candidates[i % len(candidates)] for i in range(10_000)]))
        seconds_10k = time.process_time() - start
        both = [seed for seed in held if seed in ratios[1]]
        first, second = (np.array([r[seed] for seed in both]) for r in ratios)
        return {
            "fitted": n,
            "held_out": len(held),
            "kernels": len(profile.kernels),
            "chosen": model.chosen,
            "within_two_deviations": float(inside.mean()),
            "seconds_10000": seconds_10k,
            "repeats": len(both),
            "repeats_within_3_percent": float(np.mean(np.abs(second / first - 1) <= 0.03))
            if both
            else None,
            "repeats_median_error": float(np.median(np.abs(second / first - 1))) if both else None,
            "tau_of_repeats": _tau(first, second) if len(both) > 5 else None,
            "predictors": found,
        }

    def profile(self, runtime: str, seconds: float) -> DeviceProfile:
        """Measure the kernels once."""
        path = self.folder / f"{runtime}.profile.json"
        if not path.exists():
            target, widths = ac.Target.named(runtime), self.space.pruning_choices
            profile_device(self.space.graph, widths, target, seconds=seconds).save(path)
        return DeviceProfile.load(path)


def _settled(model: torch.nn.Module) -> torch.nn.Module:
    """Set the statistics of batch norms from noise, for signals to reach the end of the model."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return model


def _score(predicted: Any, measured: Any) -> dict[str, float | None]:
    errors = np.abs(predicted / measured - 1)
    return {
        "within_10_percent": float(np.mean(errors <= 0.1)),
        "median_error": float(np.median(errors)),
        "worst_error": float(errors.max()),
        "tau": _tau(predicted, measured) if np.ptp(predicted) > 0 else None,
    }


def _tau(first: Any, second: Any) -> float:
    return float(kendalltau(first, second).statistic)


def _cells(score: dict[str, float | None], judged: dict[str, Any]) -> list[str]:
    values = (score["tau"], judged["tau_of_repeats"])
    tau = ["" if value is None else f"{value:.3f}" for value in values]
    return [f"{score['within_10_percent']:.0%}", f"{score['median_error']:.1%}", *tau]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("runs/latency_model"))
    parser.add_argument("--minutes", type=float, default=7.0, help="time to measure in this run")
    parser.add_argument("--train", type=int, default=100, help="candidates to fit to")
    parser.add_argument("--kernel-seconds", type=float, default=60.0)
    parser.add_argument("--judge", action="store_true", help="measure no more candidates")
    parser.add_argument("--smoke", action="store_true", help="a few candidates of one model")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
