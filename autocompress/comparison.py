"""Joint search beside what a user would do instead, at the same minutes, measured together."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from autocompress.artifact.export import RuntimeModule
from autocompress.artifact.onnx_file import weights_beside
from autocompress.artifact.session import check_available
from autocompress.contest import BASELINE, Contest, export_original, original_path, run_method
from autocompress.controller.members import MemberStore
from autocompress.controller.methods import (
    METHODS,
    USUAL,
)
from autocompress.core.comparison import Point, mean_difference, volumes
from autocompress.core.files import read_json, write_json
from autocompress.core.schema import SCHEMA_VERSION, check_name
from autocompress.errors import (
    AutocompressError,
    StorageError,
    StudyError,
    explain,
)
from autocompress.evaluation.original import check_device, weights_digest
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import data_digest, epoch_images, example_inputs, make_splits
from autocompress.graph.inputs import plain_copy
from autocompress.report.environment import environment
from autocompress.space.preset import SearchSpace

Say = Callable[[str], None]

FILE_SECONDS, LEAST_SECONDS = 4.0, 60.0
"""Time that the latency of a file is measured for, and of all files at least."""


def benchmark(
    contest: Contest,
    *,
    methods: Sequence[str] = USUAL,
    seeds: Sequence[int] = (0,),
    measuring_seconds: float | None = None,
    on_message: Say = lambda _: None,
) -> dict[str, Any]:
    """Run methods on one model at equal minutes, and measure all their files together.

    What is finished is kept: the same call goes on where it was stopped, and
    further methods and seeds join those that are there, and all are measured together.

    Args:
        contest: What every method is given.
        methods: Keys of `METHODS`.
        seeds: Seeds; every method runs once with each.
        measuring_seconds: Time for the interleaved run of all files; None takes `FILE_SECONDS`
            for each, and `LEAST_SECONDS` at least.
        on_message: Told of every step.

    Returns:
        What is also written to `comparison.json`: points, hypervolumes by
        method and seed, differences from "joint", and the runs that failed.

    Raises:
        InvalidInputError: If a method is unknown, or the target cannot be measured here.
        StudyError: If the folder belongs to another comparison.
    """
    for name in methods:
        check_name("'methods'", name, METHODS)
    check_available(contest.resolved)
    check_device(contest.device)
    claim(contest)
    export_original(contest)
    for seed in seeds:
        for name in methods:
            run_cell(contest, name, seed, on_message)
    cells = _cells(contest)
    files = 1 + sum(len(cell["files"]) for cell in cells)
    on_message(f"measuring {files} files in one interleaved run")
    seconds = max(LEAST_SECONDS, FILE_SECONDS * files)
    points = measure(contest, cells, seconds=measuring_seconds or seconds)
    return write_comparison(contest, cells, points)


def run_cell(contest: Contest, name: str, seed: int, on_message: Say) -> dict[str, Any]:
    """Run one method with one seed, unless it has been; return its record."""
    folder = contest.folder / name / str(seed)
    path = folder / "cell.json"
    if path.is_file() and not read_json(path)["error"]:
        return dict(read_json(path))
    on_message(f"{name}, seed {seed}: {METHODS[name].title}")
    started, error, files = time.monotonic(), "", list[Path]()
    try:
        files = run_method(contest, METHODS[name], folder, seed)
    except StorageError:
        raise
    except AutocompressError as caught:
        error = f"{type(caught).__name__}: {caught}"
        on_message(f"{name}, seed {seed} failed: {error}")
    record = {
        "schema_version": SCHEMA_VERSION,
        "method": name,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "files": [str(file.relative_to(contest.folder)) for file in files],
        "error": error,
    }
    write_json(path, record)
    return record


def _cells(contest: Contest) -> list[dict[str, Any]]:
    """Return the records of all runs of the comparison, method by method."""
    found = [read_json(path) for path in contest.folder.glob("*/*/cell.json")]
    order = {name: place for place, name in enumerate(METHODS)}
    return sorted(found, key=lambda cell: (order[cell["method"]], cell["seed"]))


def measure(contest: Contest, cells: Sequence[Mapping[str, Any]], *, seconds: float) -> list[Point]:
    """Measure the files of all cells, and the original first, in one interleaved run.

    Accuracies are kept by the content of a file, so that measuring again is quick.
    """
    origin = {"method": BASELINE, "seed": 0, "files": [original_path(contest).name]}
    listed = [(cell, name) for cell in (origin, *cells) for name in cell["files"]]
    paths = [contest.folder / name for _, name in listed]
    splits = make_splits(contest.judged, seed=0)
    model = plain_copy(contest.model)
    args, kwargs = example_inputs(contest.task, model, splits.val)
    with torch.inference_mode():
        like = model(*args, **kwargs)  # which of a file's outputs is what
    store = MemberStore(contest.folder, model, contest.task, splits, contest.resolved)
    known_path = contest.folder / "scores.json"
    known: dict[str, dict[str, float]] = read_json(known_path) if known_path.is_file() else {}
    for path in paths:
        key = _digest(path)
        if key not in known:
            runtime = RuntimeModule(
                path, threads=torch.get_num_threads(), like=like, target=contest.resolved
            )
            known[key] = {
                split: score(runtime, contest.task, batches, low_precision=False)
                for split, batches in (("val", splits.val), ("test", splits.test))
            }
            write_json(known_path, known)
    latencies = store.time(paths, seconds=seconds)
    return [
        Point(
            method=cell["method"],
            seed=cell["seed"],
            name=path.parent.name,
            path=name,
            val_accuracy=known[_digest(path)]["val"],
            accuracy=known[_digest(path)]["test"],
            latency_ms=latency.median_ms,
            latency_ci95_ms=latency.ci95_ms,
            reference_ms=latencies[0].median_ms,
            ratio_ci95=latency.ratio_ci95,
            file_bytes=sum(part.stat().st_size for part in _parts(path)),
        )
        for (cell, name), path, latency in zip(listed, paths, latencies, strict=True)
    ]


def write_comparison(
    contest: Contest, cells: Sequence[Mapping[str, Any]], points: Sequence[Point]
) -> dict[str, Any]:
    """Summarise points, the original's first, and write `comparison.json`."""
    found = volumes(points[1:], points[0])
    record = {
        "schema_version": SCHEMA_VERSION,
        "environment": environment(contest.resolved, contest.device, 0),
        "minutes": contest.minutes,
        "titles": {name: METHODS[name].title for name in found if name in METHODS},
        "hypervolume": {name: [*values.values()] for name, values in found.items()},
        "seeds": {name: [*values] for name, values in found.items()},
        "joint_minus": {
            name: mean_difference(found["joint"], values)
            for name, values in found.items()
            if "joint" in found and name != "joint"
        },
        "failed": [dict(cell) for cell in cells if cell["error"]],
        "points": [point.to_json() for point in points],
    }
    write_json(contest.folder / "comparison.json", record)
    return record


def claim(contest: Contest) -> None:
    """Refuse a folder that another model, target or budget was compared in.

    Raises:
        StudyError: With what differs.
    """
    path = contest.folder / "contest.json"
    splits = make_splits(contest.judged, seed=0)
    mine = {
        "weights": weights_digest(contest.model),
        "teachers": [weights_digest(teacher) for teacher in contest.teachers],
        "data": [data_digest(split) for split in (splits.val, splits.test)],
        "train": f"{epoch_images(contest.task)} examples",
        "device": contest.device,
        "minutes": contest.minutes,
        "trials": contest.trials,
        "finalists": contest.finalists,
        "target": contest.resolved.to_json(),
        "objectives": list(contest.objectives),
        "constraints": dict(contest.constraints or {}),
        "space": SearchSpace.load(contest.space).model_dump(mode="json"),
        "training": asdict(contest.training),
        "quantisation": asdict(contest.quantisation),
    }
    if not path.is_file():
        write_json(path, mine)
        return
    kept = read_json(path)
    changed = [key for key in kept if kept[key] != mine.get(key)]
    if changed:
        raise StudyError(
            explain(
                f"'{contest.folder}'",
                expected="the comparison that was begun there",
                got=f"another {', '.join(changed)}",
                remedy="choose another folder",
            )
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in _parts(path):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:16]


def _parts(path: Path) -> list[Path]:
    """Return a file and, if they are not in it, its weights beside it (OpenVINO, large ONNX)."""
    beside = path.with_suffix(".bin") if path.suffix == ".xml" else weights_beside(path)
    return [path, beside] if beside.is_file() else [path]
