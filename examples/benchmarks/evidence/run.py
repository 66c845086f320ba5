"""Joint search, its ablations and other tools on the same networks, at the same minutes.

    python examples/benchmarks/evidence/environments.py ENVIRONMENTS
    python examples/benchmarks/evidence/run.py --data DIR --work WORK --environments ENVIRONMENTS

Every cell (network, target, method, seed) is kept in WORK as it ends and is not run again; what
failed is tried again. All files of one network and target are then measured in one interleaved run.
`--json` writes what was found, and page.py makes the page of the documentation from it. What the
file holds of other methods and seeds stays there: evidence may be gathered on several days, each
seed on one kind of processor, and is compared by the ratio to the original's latency in the same
run.
`--threads 1 --at-once 2` runs two cells at a time, each on a processor of its own; cells that
failed are then not tried again.
"""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from ahead import run_ahead
from contend import CONTENDERS, cells_for, run_contender

import autocompress as ac
from autocompress.artifact.saturation import saturates
from autocompress.comparison import claim, measure, run_cell, write_comparison
from autocompress.contest import Contest, export_original
from autocompress.controller.methods import METHODS
from autocompress.core.comparison import (
    ACCURACY_ROOM,
    Point,
    chosen,
    front_volume,
    joined,
    mean_difference,
    volumes,
)
from autocompress.core.files import read_json, write_json
from autocompress.cost.measurement import device_name
from autocompress.report.comparison import comparison_tables
from subjects import Subject, make_subject

ABLATIONS = {"resnet20": [*METHODS], "resnet56": ["joint", "sequential", "random", "int8"]}
"""Methods of ours by network; the others take `FEW`."""

UNION = "union_of_contenders"
FEW = ["joint", "int8"]
NETWORKS = ("resnet20", "resnet56", "mobilenet", "vit", "text", "tabular")
TARGETS = ("onnxruntime-cpu", "openvino-cpu")
PACKAGES = ("autocompress", "torch", "onnx", "onnxruntime", "openvino", "optuna")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One network on one target.

    Attributes:
        subject: The network.
        root: Its folder, which all its targets share.
        contest: What methods of ours are given.
    """

    subject: Subject
    root: Path
    contest: Contest


def main() -> None:
    """Run what is missing, measure, and write the evidence."""
    options = _options()
    if options.cores:
        os.sched_setaffinity(0, options.cores)
    torch.set_num_threads(options.threads)
    console = Console(width=130)
    evidence: dict[str, Any] = {"schema_version": 1, "minutes": options.minutes, "models": {}}
    evidence["threads"] = options.threads
    evidence["versions"] = {name: _version(name) for name in PACKAGES}
    kept = read_json(options.json)["models"] if options.json and options.json.is_file() else {}
    check_setting(kept, options)
    if options.at_once > 1:
        run_ahead(missing(options), options.at_once)
    for network in options.networks:
        for target in options.targets:
            place = make_place(network, target, options)
            console.rule(f"{network} on {target}")
            cells, others = run_cells(place, options, console)
            if options.cores:  # all are measured when the last one is done
                continue
            before = kept.get(network, {}).get(target, {})
            found = summarise(place, [*cells, *others], before, options, console)
            evidence["models"].setdefault(network, {})[target] = found
    if options.json and not options.cores:
        merged = {n: kept.get(n, {}) | evidence["models"].get(n, {}) for n in NETWORKS}
        evidence["models"] = {name: found for name, found in merged.items() if found}
        write_json(options.json, evidence)
        console.print(f"written: {options.json}")


def check_setting(kept: dict[str, Any], options: argparse.Namespace) -> None:
    """Stop before a seed has figures of two processors, where other files are the faster ones.

    Another processor may add seeds of its own, at the same minutes and threads.

    Args:
        kept: What the file of `--json` holds, by network and target.
        options: Of the command line.

    Raises:
        SystemExit: If it holds figures of the same networks, targets and seeds from another
            processor, or figures of other minutes or threads.
    """
    here = setting(options)
    for network in options.networks:
        for target in options.targets:
            for there in kept.get(network, {}).get(target, {}).get("settings", []):
                host, seeds = split_setting(there)
                alike = all(host[key] == here[key] for key in ("minutes", "threads"))
                if host == here or (alike and not {*seeds} & {*options.seeds}):
                    continue
                raise SystemExit(
                    f"--json: {options.json} holds {network} on {target}, seeds {seeds}, from "
                    f"{host}; expected {here}: such figures do not compare. Name other seeds, or, "
                    "for other minutes or threads, another file and another --work."
                )


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """Return what all figures of one seed have in common."""
    return {
        "processor": device_name(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "clips": saturates(ac.Target.named("onnxruntime-cpu")),
        "minutes": options.minutes,
        "threads": options.threads,
    }


def split_setting(kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Return a setting that is kept, and the seeds that were run there."""
    return {key: value for key, value in kept.items() if key != "seeds"}, kept["seeds"]


def add_setting(
    kept: Sequence[Mapping[str, Any]], here: Mapping[str, Any], seeds: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the settings that are kept, each with its seeds, and this one with more of them."""
    known = [split_setting(there) for there in kept]
    mine = {seed for host, there in known if host == here for seed in there} | {*seeds}
    others = [{**host, "seeds": there} for host, there in known if host != here]
    return [*others, {**here, "seeds": sorted(mine)}]


def make_place(network: str, target: str, options: argparse.Namespace) -> Place:
    """Load or train a network, and set the contest up."""
    root = options.work / network
    subject = make_subject(
        network, options.data, root, minutes=options.train_minutes, images=options.images
    )
    contest = Contest(
        model=subject.model,
        task=subject.task,
        folder=root / target,
        minutes=options.minutes,
        target=ac.Target.named(target, threads=1),
        space=subject.space,
        trials=options.trials,
        constraints={"accuracy_drop": ACCURACY_ROOM},
    )
    claim(contest)
    return Place(subject=subject, root=root, contest=contest)


def missing(options: argparse.Namespace) -> list[list[str]]:
    """Return the command of every cell that is not there yet, contenders once for all targets."""
    commands = []
    for network in options.networks:
        for target in options.targets:
            place = make_place(network, target, options)
            share_original(place)
            for seed in options.seeds:
                for name in methods_of(network, options):
                    if not (place.contest.folder / name / str(seed) / "cell.json").is_file():
                        commands.append(_command(network, target, seed, name, ""))
                for name in options.contenders if target == options.targets[0] else []:
                    if not (place.root / "contenders" / name / str(seed) / "cell.json").is_file():
                        commands.append(_command(network, target, seed, "", name))
    return commands


def _command(network: str, target: str, seed: int, method: str, contender: str) -> list[str]:
    """Return the command of one cell: this one, with later arguments that narrow it."""
    cell = ("--networks", network, "--targets", target, "--seeds", str(seed))
    names = ("--methods", method, "--contenders", contender)
    return [sys.executable, __file__, *sys.argv[1:], "--at-once", "1", *cell, *names]


def share_original(place: Place) -> None:
    """Export the original, for the contenders too."""
    export_original(place.contest)
    original = place.root / "bundle" / "original.onnx"
    if not original.is_file():
        original.write_bytes((place.contest.folder / "original.onnx").read_bytes())


def methods_of(network: str, options: argparse.Namespace) -> list[str]:
    """Return the methods of ours that a network is compressed by."""
    if options.methods is not None:
        return list(options.methods)
    return ABLATIONS.get(network, FEW)


def run_cells(
    place: Place, options: argparse.Namespace, console: Console
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the cells of one network and target; return those of ours, and of contenders."""
    contest, root, network = place.contest, place.root, place.subject.name
    share_original(place)
    cells, others = [], []
    for seed in options.seeds:
        for name in methods_of(network, options):
            known = contest.folder / name / str(seed) / "cell.json"
            done = options.at_once > 1 and known.is_file()
            cells.append(read_json(known) if done else run_cell(contest, name, seed, console.print))
        for name in options.contenders:
            known = root / "contenders" / name / str(seed) / "cell.json"
            if options.at_once > 1 and known.is_file():
                others.append(read_json(known))
                continue
            console.print(f"{name}, seed {seed}: {CONTENDERS[name].title}")
            environments = options.environments
            others.append(
                run_contender(
                    name,
                    network,
                    root,
                    environments,
                    seed=seed,
                    minutes=options.minutes,
                    threads=options.threads,
                )
            )
    return cells, cells_for(contest.resolved.name, others, contest.folder)


def summarise(
    place: Place,
    cells: list[dict[str, Any]],
    kept: dict[str, Any],
    options: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """Measure the files of all cells in one interleaved run, and compare them.

    Args:
        place: The network and the target.
        cells: Records of what was run.
        kept: What an earlier run found there; other methods and seeds of it stay.
        options: Of the command line.
        console: Where to print.
    """
    contest = place.contest
    torch.set_num_threads(processors())  # to score files; latencies have the target's threads
    points = measure(contest, cells, seconds=options.measuring_seconds)
    torch.set_num_threads(options.threads)
    points = joined([Point.from_json(point) for point in kept.get("points", [])], points)
    record = write_comparison(contest, cells, points)
    again = {(cell["method"], cell["seed"]) for cell in cells}
    record["failed"] += [
        cell for cell in kept.get("failed", []) if (cell["method"], cell["seed"]) not in again
    ]
    seeds = {cell["seed"] for cell in cells}
    record["settings"] = add_setting(kept.get("settings", []), setting(options), seeds)
    record["titles"] |= {name: contender.title for name, contender in CONTENDERS.items()}
    add_union(record, points[0], points[1:])
    write_json(contest.folder / "comparison.json", record)
    console.print(comparison_tables(record))
    return record


def add_union(record: dict[str, Any], baseline: Point, points: list[Point]) -> None:
    """Add the union of all contenders, seed by seed, and what of the joint fronts they beat.

    "union_of_contenders" joins the hypervolumes, of the seeds that other tools were run with;
    "contenders" names its methods, and "dominated" lists the members of joint fronts that a file
    of theirs beats, whatever its seed on the same processor.
    """
    names = ["int8", *CONTENDERS]
    theirs = [p for p in points if p.method in names]
    seeds = {p.seed for p in theirs if p.method in CONTENDERS} or {p.seed for p in theirs}
    union = {
        seed: front_volume([baseline, *(p for p in theirs if p.seed == seed)], baseline)
        for seed in sorted(seeds)
    }
    ours = [p for p in points if p.method == "joint"]
    dominated = [
        {"path": member.path, "by": [p.path for p in theirs if p.seed in there and p.beats(member)]}
        for there in (split_setting(kept)[1] for kept in record["settings"])
        for seed in there
        for member in chosen([p for p in ours if p.seed == seed])
    ]
    record["contenders"] = names
    record["dominated"] = [entry for entry in dominated if entry["by"]]
    if not union:
        return
    record["titles"][UNION] = "all contenders together"
    record["hypervolume"][UNION] = [*union.values()]
    record["seeds"][UNION] = [*union]
    joint = volumes(points, baseline).get("joint")
    if joint is not None:
        record["joint_minus"][UNION] = mean_difference(joint, union)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _names(known: Any) -> Any:
    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return read


def _cores(text: str) -> list[int]:
    return [int(core) for core in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder of cifar10_jpeg.npz and of the ResNets' weights")
    add("--work", type=Path, default=Path("runs/evidence"), help="where cells are kept")
    add("--environments", type=Path, default=Path("runs/environments"))
    add("--networks", type=_names(NETWORKS), default=["resnet20", "resnet56"])
    add("--targets", type=_names(TARGETS), default=[*TARGETS])
    add("--methods", type=_names(METHODS), help="of ours; else as the network deserves")
    add("--contenders", type=_names(CONTENDERS), default=[*CONTENDERS])
    add("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    add("--minutes", type=float, default=10.0, help="of every cell")
    add("--trials", type=int, help="trials of one search at most")
    add("--train-minutes", type=float, default=20.0, help="of networks without given weights")
    add("--measuring-seconds", type=float, default=180.0)
    add("--threads", type=int, default=2, help="threads that train; one runs what is measured")
    add("--at-once", type=int, default=1, help="cells side by side, each on its own processors")
    add("--cores", type=_cores, help="processors of the one cell that is run; nothing is measured")
    add("--images", type=int, help="training and test images that are used at most")
    add("--json", type=Path, help="where the evidence is written")
    add("--smoke", action="store_true", help="two methods on a small table, in a minute")
    options = parser.parse_args()
    if options.smoke:
        options.networks, options.targets, options.seeds = ["tabular"], ["onnxruntime-cpu"], [0]
        options.methods = options.methods or ["joint", "int8"]
        options.contenders, options.images = [], 2000
        options.minutes, options.trials, options.train_minutes = 0.3, 3, 0.05
        options.measuring_seconds, options.work = 2.0, options.work / "smoke"
    elif options.data is None:
        parser.error("--data is needed, or --smoke")
    if not 1 <= options.at_once <= processors():
        parser.error(f"--at-once: expected 1 to {processors()} here, got {options.at_once}")
    return options


if __name__ == "__main__":
    main()
