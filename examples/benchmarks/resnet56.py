"""ResNet-56 made as fast as int8 ResNet-20 and faster, beside what a user would do instead.

    python examples/benchmarks/resnet56.py --data DIR --work WORK --minutes 120 \
        --json docs/benchmarks/training.json

DIR holds cifar10_jpeg.npz and the weights of both networks. The latency of int8 ResNet-20 is the
joint search's limit; contenders that prune may keep as many multiplications as ResNet-20 has, for
the same minutes. `--repeats 1,2` trains the finalists again with other seeds. Every run is kept
in WORK, and goes on where it was stopped; all files are measured in one interleaved run. What the
JSON file holds of other methods and seeds stays there, so that they may be run on other days: each
row has the processor, the latency of int8 ResNet-20 in its own run, and its ratio to that.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.comparison import claim, measure, run_cell
from autocompress.contest import Contest, export_original
from autocompress.controller.methods import METHODS
from autocompress.core.comparison import Point
from autocompress.core.files import read_json, write_json
from autocompress.cost.measurement import device_name
from cifar10 import paired
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model

CONTENDERS = ("int8", "sequential", "pruning-only", "bits-only")
"""Methods beside the joint search; int8 ResNet-20 is added."""

SMALL, REPEAT = "resnet20-int8", "repeat"
DROP = 0.025
"""Accuracy on `val` that members may lose: int8 ResNet-20 lacks 1.5 points, the smallest member may
lack one more."""

LIMIT = 0.98
"""Of int8 ResNet-20's latency, what members may take: the last measurement is another one."""

SHARES = (1.0, 0.7)
"""Latencies that picks have at most, of int8 ResNet-20's."""


def main() -> None:
    """Run what is missing, measure, print and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    task = make_random_task() if options.smoke else make_task(options.data / "cifar10_jpeg.npz")
    small = contest_of(20, task, options)
    contest = contest_of(56, task, options)
    for given in (small, contest):
        claim(given)
        export_original(given)
    console = Console(width=110)
    [reference] = run_cell(small, "int8", 0, console.print)["files"]
    limit = f"{100 * LIMIT * share_of(small.folder / reference, contest):.2f}%"
    limited = replace(contest, constraints={"latency_ms": limit, "accuracy_drop": DROP})
    cells = [run_cell(limited, "joint", 0, console.print)] if options.joint else []
    pruning = replace(contest, constraints={"macs": "33%"})
    for name in options.contenders:
        given = pruning if name in ("sequential", "pruning-only") else contest
        cells.append(run_cell(given, name, 0, console.print))
    cells += [repeat(limited, seed, options) for seed in options.repeats]
    cells.append({"method": SMALL, "seed": 0, "files": [f"../resnet20/{reference}"], "error": ""})
    points = measure(contest, [c for c in cells if not c["error"]], seconds=options.seconds)
    show(points, contest, console, options)


def contest_of(depth: int, task: ac.Task, options: argparse.Namespace) -> Contest:
    """Load a network; set up what its methods are given."""
    model = make_model(8 if options.smoke else depth)
    if not options.smoke:
        model.load_state_dict(load_file(options.data / f"resnet{depth}_cifar10jpeg.safetensors"))
    return Contest(
        model=model.eval(),
        task=task,
        folder=(options.work / f"resnet{depth}").absolute(),
        minutes=options.minutes,
        trials=options.trials,
        finalists=options.finalists,
        target=ac.Target.named("onnxruntime-cpu", threads=1),
        training=ac.TrainingConfig(
            recipe=ac.Recipe(learning_rate=options.learning_rate),
            learning_share=options.learning_share,
        ),
    )


def share_of(path: Path, contest: Contest) -> float:
    """Measure a file once beside the original of a contest; return its share of that latency."""
    kept = contest.folder / "limit.json"
    if not kept.is_file():
        cell = {"method": SMALL, "seed": 0, "files": [str(path)], "error": ""}
        write_json(kept, {"share": measure(contest, [cell], seconds=20.0)[1].latency_ratio})
    return float(read_json(kept)["share"])


def repeat(contest: Contest, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train the candidates of the joint front again, with another seed; return a cell."""
    folder = contest.folder / REPEAT / str(seed)
    designs = joint_front(contest, options.json)
    if not designs:
        return {"method": REPEAT, "seed": seed, "files": [], "error": "the joint front is empty"}
    result = contest.search(
        METHODS["joint"],
        folder,
        seed=seed,
        minutes=options.repeat_minutes,
        designs=designs,
        sampler="random",
        budget=ac.Budget(
            trials=len(designs) + 1, minutes=options.repeat_minutes, finalists=len(designs)
        ),
    )
    files = [str(member.path.relative_to(contest.folder)) for member in result.front]
    return {"method": REPEAT, "seed": seed, "files": files, "error": ""}


def joint_front(contest: Contest, path: Path | None) -> list[ac.Candidate]:
    """Return the candidates of the joint front: of the run in WORK, or else those that are kept."""
    folder = contest.folder / "joint" / "0"
    if (folder / "front.json").is_file():
        members = ac.open(folder).front
        return [m.candidate for m in members if m.measured["origin"] != "plain int8"]
    rows = read_json(path).get("front", []) if path and path.is_file() else []
    kept = [row["candidate"] for row in rows if row["method"] == "joint" and row["on_front"]]
    return [ac.Candidate.from_json(json.dumps(candidate)) for candidate in kept]


def show(
    points: list[Point], contest: Contest, console: Console, options: argparse.Namespace
) -> None:
    """Print the points with paired intervals against int8 ResNet-20, and write them."""
    small = next(point for point in points if point.method == SMALL)
    table = Table("method", "seed", "val %", "test %", "ms", "of ResNet-20's", "points", "95 %")
    host = {"processor": device_name(), "vectors": torch.backends.cpu.get_cpu_capability()}
    rows, front = [], joint_front(contest, None)
    for point in sorted(points, key=lambda p: (p.method, p.seed, p.latency_ms)):
        compared = paired(contest.task, contest.folder / point.path, contest.folder / small.path)
        ratio = point.latency_ms / small.latency_ms
        spent = {"minutes": options.minutes, "threads": options.threads, **host}
        known = {"reference_ms": small.latency_ms, "latency_ratio": ratio}
        rows.append(point.to_json() | compared | known | spent | what(point, contest, front))
        table.add_row(
            point.method,
            str(point.seed),
            f"{100 * point.val_accuracy:.2f}",
            f"{100 * point.accuracy:.2f}",
            f"{point.latency_ms:.3f}",
            f"{ratio:.3f}",
            f"{compared['points']:+.2f}",
            f"{compared['low']:+.2f} to {compared['high']:+.2f}",
        )
    console.print(table)
    for share in SHARES:
        for method in ("joint", REPEAT):
            fitting = [p for p in points if p.method == method]
            fitting = [p for p in fitting if p.latency_ms <= share * small.latency_ms]
            for seed in sorted({p.seed for p in fitting}):
                best = max((p for p in fitting if p.seed == seed), key=lambda p: p.val_accuracy)
                console.print(
                    f"at {share:g}: {method}, seed {seed}: {best.name}, "
                    f"{100 * (best.accuracy - small.accuracy):+.2f} points on test"
                )
    if options.json:
        write(rows, options.json)
        console.print(f"written: {options.json}")


def what(point: Point, contest: Contest, front: list[ac.Candidate]) -> dict[str, Any]:
    """Return the candidate of a file that a search wrote, and whether its front has it."""
    path = (contest.folder / point.path).parent / "candidate.json"
    if not path.is_file():
        return {}
    candidate = ac.Candidate.from_json(path.read_text(encoding="utf-8"))
    return {"candidate": read_json(path), "on_front": candidate in front}


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows in place of those of the same methods and seeds."""
    kept = read_json(path) if path.is_file() else {}
    mine = {(row["method"], row["seed"]) for row in rows}
    others = [*kept.get("front", []), *kept.get("contenders", [])]
    rows = [row for row in others if (row["method"], row["seed"]) not in mine] + rows
    kept["front"] = [row for row in rows if row["method"] in ("joint", REPEAT)]
    kept["contenders"] = [row for row in rows if row["method"] not in ("joint", REPEAT)]
    write_json(path, kept)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder of cifar10_jpeg.npz and of the ResNets' weights")
    add("--work", type=Path, default=Path("runs/resnet56"), help="where every run is kept")
    add("--minutes", type=float, default=120.0, help="of every method")
    add("--trials", type=int, default=60, help="of one search at most")
    add("--finalists", type=int, default=3, help="candidates that one search trains fully")
    add("--no-joint", dest="joint", action="store_false", help="run the others alone")
    add("--contenders", type=_names, default=[], help=f"of {','.join(CONTENDERS)}, or all")
    add("--learning-rate", type=float, help="peak in all trainings; else the default")
    add("--learning-share", type=float, default=0.15, help="of training, to compare distillations")
    add("--repeats", type=_seeds, default=[], help="seeds, such as 1,2, to train finalists with")
    add("--repeat-minutes", type=float, default=90.0, help="of every repeat")
    add("--seconds", type=float, default=120.0, help="of the last measurement")
    add("--threads", type=int, default=2, help="threads that train; one runs what is measured")
    add("--json", type=Path, help="where front and contenders are written")
    add("--smoke", action="store_true", help="a tiny network on random images, in minutes")
    options = parser.parse_args()
    if options.smoke:
        options.minutes = options.repeat_minutes = 0.4
        options.trials, options.finalists, options.seconds = 2, 1, 2.0
        options.work = options.work / "smoke"
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    return options


def _names(text: str) -> list[str]:
    names = [*CONTENDERS] if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; known: {', '.join(CONTENDERS)}")
    return names


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


if __name__ == "__main__":
    main()
