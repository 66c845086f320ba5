"""Surgery: what applying one more candidate costs, with and without what a surgeon keeps.

    python examples/benchmarks/surgery.py

For a CIFAR ResNet-56 and a vision transformer of the size of ViT-B/16, both with random
weights: the time to trace the model, to compress it for the first time, and then to
compress it afresh and again with a surgeon, for the same candidates drawn at random. The
copy of what is kept is included; copying the whole model alone is given for comparison.
"""

import argparse
import copy
import functools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.cost.measurement import device_name
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.surgeon import Surgeon
from cifar10_models import make_model
from vision_transformer import VisionTransformer

ONCE, OFTEN = ("trace_s", "first_s"), ("fresh", "again", "copy")
"""Times that are taken once for a model, and for each of its candidates."""


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    torch.manual_seed(options.seed)
    transformer = (48, 2, 4) if options.smoke else (768, 12, 12)
    vit = VisionTransformer(*transformer, size=224, patch=16, classes=1000)
    models = {
        f"ResNet-{options.depth}": (make_model(options.depth), torch.randn(2, 3, 32, 32)),
        "ViT": (vit, torch.randn(2, 3, 224, 224)),
    }
    columns = ("model", "parameters", "trace s", "first s", "fresh ms", "again ms", "copy ms")
    table = Table(*columns, title=f"surgery, medians of {options.repeats}")
    figures = {}
    for name, (model, inputs) in models.items():
        found = measure(model.eval(), inputs, options.repeats, options.seed)
        once = (f"{found['parameters'] / 1e6:.2f} M", *(f"{found[k]:.2f}" for k in ONCE))
        medians = {f"{key}_ms": 1e3 * statistics.median(found[f"{key}_s"]) for key in OFTEN}
        table.add_row(name, *once, *(f"{value:.1f}" for value in medians.values()))
        figures[name] = found | medians
    Console(width=100).print(table)
    host = {"device": device_name(), "threads": torch.get_num_threads()}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    settings = {"seed": options.seed, "repeats": options.repeats}
    if options.json:
        result = host | versions | settings | {"models": figures}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(model: nn.Module, inputs: Tensor, repeats: int, seed: int) -> dict[str, object]:
    """Time surgery on one model."""
    started = time.perf_counter()
    graph = trace(model, inputs)
    trace_s = time.perf_counter() - started
    space = ac.SearchSpace.load("cnn").bind_graph(graph)
    arguments = ((inputs,), {})
    surgeon = Surgeon(model, graph, arguments)
    first_s = _seconds(lambda: surgeon.compress(space.uniform(8, 8, 0.5)))
    times: dict[str, list[float]] = {f"{key}_s": [] for key in OFTEN}
    for candidate in (space.sample(seed + index) for index in range(repeats)):
        fresh = functools.partial(compress_model, model, graph, candidate, arguments)
        times["fresh_s"].append(_seconds(fresh))
        times["again_s"].append(_seconds(functools.partial(surgeon.compress, candidate)))
        times["copy_s"].append(_seconds(functools.partial(copy.deepcopy, model)))
    return {
        "parameters": graph.parameters,
        "prunable_groups": sum(group.prunable for group in graph.groups),
        "droppable_blocks": sum(block.droppable for block in graph.blocks),
        "derived_plans": surgeon.plans.derivable,
        "trace_s": trace_s,
        "first_s": first_s,
        **times,
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, two repeats")
    options = parser.parse_args()
    if options.smoke:
        options.depth, options.repeats = 8, 2
    return options


if __name__ == "__main__":
    main()
