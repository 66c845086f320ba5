"""Fidelity 0: its time against one plain pass, and its ranking against float32.

    python examples/benchmarks/proxy.py --data cifar10_jpeg.npz --weights resnet20.safetensors

The time of a whole proxy trial (surgery, recalibration, calibration, accuracy on
2,000 validation images) is compared, within one run, with one eager float32 pass of
the original over the same images. The ranking of random candidates by the proxy in
bfloat16 is compared with the same proxy in float32 by Kendall's tau.
"""

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy.stats import kendalltau

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.cost.measurement import device_name
from autocompress.evaluation import precision
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.splits import example_inputs, make_splits
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    model = make_model(options.depth)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    model.eval()
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    space = ac.SearchSpace.load("cnn").bind(
        model, example_inputs(task, model, splits.val)[0], ac.Target.named("onnxruntime-cpu")
    )
    plain = [(images.contiguous(), labels) for images, labels in splits.proxy]
    original = make_model(options.depth).eval()
    original.load_state_dict(model.state_dict())

    def one_pass() -> None:
        with torch.no_grad():
            for images, _ in plain:
                original(images)

    with tempfile.TemporaryDirectory() as folder:
        frozen = model.to(memory_format=torch.channels_last)
        evaluator = Evaluator(
            frozen, space.graph, task, splits, checkpoints=Path(folder), seed=options.seed
        )
        candidates = {
            "unpruned W8A8": space.uniform(8, 8, 0.0),
            "half pruned W8A8": space.uniform(8, 8, 0.5),
        }
        times: dict[str, list[float]] = {"pass": [], **{name: [] for name in candidates}}
        for _ in range(options.repeats):
            times["pass"].append(_seconds(one_pass))
            for name, candidate in candidates.items():
                times[name].append(_seconds(lambda c=candidate: evaluator.proxy(c)))
        drawn = [space.sample(options.seed + index) for index in range(options.candidates)]
        fast = [evaluator.proxy(candidate).accuracy for candidate in drawn]
        with _float32():
            exact = [evaluator.proxy(candidate).accuracy for candidate in drawn]
    ratios = {
        name: [b / a for a, b in zip(times["pass"], values, strict=True)]
        for name, values in times.items()
        if name != "pass"
    }
    tau = float(kendalltau(fast, exact).statistic)
    table = Table("candidate", "seconds", "x one float32 pass", title="fidelity 0, 2,000 images")
    table.add_row("(one float32 pass)", f"{statistics.median(times['pass']):.2f}", "1.00")
    for name, values in ratios.items():
        table.add_row(
            name, f"{statistics.median(times[name]):.2f}", f"{statistics.median(values):.2f}"
        )
    console = Console(width=100)
    console.print(table)
    console.print(
        f"Kendall's tau of {len(drawn)} random candidates, bfloat16 to float32: {tau:.3f}"
    )
    result = {
        "device": device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "seed": options.seed,
        "repeats": options.repeats,
        "seconds": times,
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "ratios": ratios,
        "kendall_tau": tau,
        "accuracy": {"bfloat16": fast, "float32": exact},
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Make every proxy run in float32 for comparison."""
    kept = precision.bfloat16_is_fast
    precision.bfloat16_is_fast = lambda device: False
    try:
        yield
    finally:
        precision.bfloat16_is_fast = kept


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="a state dictionary, .safetensors")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on random images")
    options = parser.parse_args()
    if options.smoke:
        options.depth, options.repeats, options.candidates = 8, 1, 2
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
