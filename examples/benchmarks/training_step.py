"""A step of training: eager or compiled, with a teacher that runs or whose answers are known.

    python examples/benchmarks/training_step.py --json docs/benchmarks/training-step.json

A ResNet-56 teaches itself, a ResNet-56 of whose channels half are left, and one of whose blocks
two thirds are dropped, which is about a ResNet-20; random weights and images do for that. The ways
take turns, and ratios are those within a turn.
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name
from autocompress.evaluation.answers import Answers, fingerprint
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.teaching import LABELS, Teaching
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel
from cifar10_models import make_model

WAYS = {
    "labels alone": (False, False),
    "teacher runs": (False, False),
    "answer known": (False, True),
    "compiled, labels alone": (True, False),
    "compiled, teacher runs": (True, False),
    "compiled, answer known": (True, True),
}
"""Whether a way is compiled, and whether it keeps answers; the first is what others compare to."""

BATCH = 128


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    teacher = make_model(8 if options.smoke else 56).eval()
    size = 8 if options.smoke else BATCH
    batch = (torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,)))
    task = ac.Task(train=[batch], val=[batch])
    found = {
        name: measure(student, teacher, task, options.repeats)
        for name, student in students(teacher, batch[0]).items()
    }
    table = Table("student", "way", "seconds", "of labels alone", title=f"a step of {size} images")
    for student, times in found.items():
        base = times["labels alone"]
        for way, seconds in times.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
            table.add_row(student, way, f"{statistics.median(seconds):.3f}", f"{ratio:.2f}")
        table.add_section()
    Console(width=100).print(table)
    if options.json:
        where = {
            "device": device_name(),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "seed": options.seed,
            "repeats": options.repeats,
            "batch": size,
        }
        write_json(options.json, where | {"seconds": found})


def students(teacher: nn.Module, images: torch.Tensor) -> dict[str, CompressedModel]:
    """Make the students."""
    graph = trace(teacher, (images[:2],))
    inner = [
        block.name for index, block in enumerate(graph.blocks) if index % 3 and block.droppable
    ]
    candidates = {
        "ResNet-56": ac.Candidate(),
        "half of its channels": ac.Candidate(
            pruning_ratios={group.name: 0.5 for group in graph.groups if group.prunable}
        ),
        "a third of its blocks": ac.Candidate(dropped_blocks=tuple(inner)),
    }
    return {
        name: compress_model(teacher, graph, candidate, ((images[:2],), {}))
        for name, candidate in candidates.items()
    }


def measure(
    student: CompressedModel, teacher: nn.Module, task: ac.Task, repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of a step in every way, one for every turn."""
    [batch] = task.train
    distill = ac.DistillConfig(kd_weight=0.9, temperature=4.0)
    with ExitStack() as stack:
        ways: dict[str, Callable[[], None]] = {}
        for name, (compiled, keeps) in WAYS.items():
            teaching = stack.enter_context(
                Teaching(
                    copy.deepcopy(student),
                    [teacher],
                    task,
                    distill,
                    LABELS if "labels" in name else "both",
                    compiled=compiled,
                    answers=Answers(0, 1) if keeps else None,
                )
            )
            ways[name] = lambda teaching=teaching: step(teaching, batch)
        for run in ways.values():  # compiles, and asks the teacher once
            run(), run()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, run in ways.items():
                begun = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begun)
    return times


def step(teaching: Teaching, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Compute the gradients of a batch; to be known it has to be recognised."""
    student = teaching.student.train()
    student.quantise_weights = student.quantise_activations = False
    student.zero_grad()
    with arithmetic("cpu", low_precision=True):
        loss = teaching.loss(batch, fingerprint(batch) if teaching.answers else None)
    loss.backward()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="a tiny network, two turns")
    options = parser.parse_args()
    if options.smoke:
        options.repeats = 2
    return options


if __name__ == "__main__":
    main()
