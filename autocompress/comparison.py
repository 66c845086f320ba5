"""Joint search beside what a user would do instead, at the same minutes, measured together."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress import api
from autocompress.artifact.export import RuntimeModule, feed_of
from autocompress.artifact.session import check_available, open_model
from autocompress.artifact.static_int8 import static_int8
from autocompress.controller.designs import plain_int8
from autocompress.controller.members import MemberStore
from autocompress.controller.methods import (
    METHODS,
    PRUNING_STEP,
    SEQUENTIAL,
    STATIC,
    UNIFORM,
    USUAL,
    Method,
)
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.comparison import Point, mean_difference, volumes
from autocompress.core.files import read_json, write_json
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.schema import SCHEMA_VERSION, check_name
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.resolve import resolve_target
from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    StorageError,
    StudyError,
    explain,
)
from autocompress.evaluation.original import frozen_copy, weights_digest
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import example_inputs, make_splits
from autocompress.evaluation.task import Task
from autocompress.report.environment import environment
from autocompress.space.preset import SearchSpace

BASELINE = "original"
"""Method of the fp32 file that everything is compared with."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What every method is given alike.

    Attributes:
        model: The trained model; never changed.
        task: Its data, loss and metric.
        folder: Where everything is written.
        minutes: Wall time of one run of one method, > 0.
        target: Where the files run; one that can be measured here.
        objectives: What searches optimise.
        constraints: What members of fronts must meet.
        space: The joint search space.
        training: How candidates are trained.
        quantisation: How grids are chosen.
        device: Torch device that trains.
        trials: Trials of one search at most; None for no limit but the minutes.
    """

    model: nn.Module
    task: Task
    folder: Path
    minutes: float = 10.0
    target: str | Target = "onnxruntime-cpu"
    objectives: tuple[str, ...] = ("accuracy", "latency_ms")
    constraints: Mapping[str, float | str] | None = None
    space: str | Path | Mapping[str, Any] | SearchSpace = "cnn"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    quantisation: QuantisationConfig = field(default_factory=QuantisationConfig)
    device: str = "cpu"
    trials: int | None = None

    @property
    def resolved(self) -> Target:
        """The target itself."""
        return resolve_target(self.target)[0]

    def search(
        self, method: Method, folder: Path, *, seed: int, minutes: float, **changes: Any
    ) -> api.SearchResult:
        """Run or continue one search with the switches of a method.

        Args:
            method: Its switches.
            folder: The folder of the study.
            seed: The seed.
            minutes: Its budget.
            **changes: Arguments of `search` that replace those of the method.
        """
        training = TrainingConfig.from_mapping({**asdict(self.training), **method.training})
        given: dict[str, Any] = {
            "target": self.target,
            "objectives": method.objectives or self.objectives,
            "constraints": self.constraints,
            "space": method.space_of(SearchSpace.load(self.space)),
            "budget": Budget(minutes=minutes, trials=self.trials),
            "sampler": method.sampler,
            "training": training,
            "quantisation": self.quantisation,
            "device": self.device,
        }
        return api.search(
            self.model, self.task, study_dir=folder, seed=seed, verbose=False, **(given | changes)
        )


def benchmark(
    contest: Contest,
    *,
    methods: Sequence[str] = USUAL,
    seeds: Sequence[int] = (0,),
    measuring_seconds: float = 60.0,
    on_message: Say = lambda _: None,
) -> dict[str, Any]:
    """Run methods on one model at equal minutes, and measure all their files together.

    What is finished is kept: the same call goes on where it was stopped, and
    further methods and seeds join those that are there.

    Args:
        contest: What every method is given.
        methods: Keys of `METHODS`.
        seeds: Seeds; every method runs once with each.
        measuring_seconds: Time for the interleaved run of all files.
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
    _claim(contest)
    export_original(contest)
    cells = [run_cell(contest, name, seed, on_message) for seed in seeds for name in methods]
    on_message("measuring all files in one interleaved run")
    points = measure(contest, cells, seconds=measuring_seconds)
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


def run_method(contest: Contest, method: Method, folder: Path, seed: int) -> list[Path]:
    """Let one method compress the model; return the files that it made."""
    if method.recipe == STATIC:
        return [static_int8(_original(contest), folder / "int8.onnx", _feeds(contest, seed))]
    if method.recipe == SEQUENTIAL:
        pruning = replace(method, space=PRUNING_STEP)
        half = contest.minutes / 2
        pruned = contest.search(pruning, folder / "prune", seed=seed, minutes=half)
        candidates = [member.candidate for member in pruned.front]
        return _train_given(contest, method, folder / "distil", seed, half, candidates)
    if method.recipe == UNIFORM:
        space = SearchSpace.load(contest.space)
        bound = method.space_of(space).bind(contest.model, _inputs(contest), contest.resolved)
        candidates = [bound.uniform(32, 32, ratio) for ratio in space.pruning.ratios]
        return _train_given(contest, method, folder, seed, contest.minutes, candidates)
    return _files(contest.search(method, folder, seed=seed, minutes=contest.minutes))


def _train_given(
    contest: Contest,
    method: Method,
    folder: Path,
    seed: int,
    minutes: float,
    candidates: Sequence[Candidate],
) -> list[Path]:
    """Fine-tune pruned candidates with 8 bits everywhere; nothing else is searched."""
    space = method.space_of(SearchSpace.load(contest.space))
    int8 = plain_int8(space.bind(contest.model, _inputs(contest), contest.resolved)).layers
    designs = dict.fromkeys(replace(c, layers=int8) for c in candidates)
    result = contest.search(
        method,
        folder,
        seed=seed,
        minutes=minutes,
        designs=list(designs),
        sampler="random",
        budget=Budget(minutes=minutes, trials=len(designs) + 1),
    )
    return _files(result)


def export_original(contest: Contest) -> Path:
    """Write the fp32 file of the original once; return its path."""
    path = _original(contest)
    if not path.is_file():
        compressed = api.compress(contest.model, Candidate(), _inputs(contest))
        api.export(compressed, path, _inputs(contest), target=contest.target)
    return path


def measure(contest: Contest, cells: Sequence[Mapping[str, Any]], *, seconds: float) -> list[Point]:
    """Measure the files of all cells, and the original first, in one interleaved run.

    Accuracies are kept by the content of a file, so that measuring again is quick.
    """
    origin = {"method": BASELINE, "seed": 0, "files": [_original(contest).name]}
    listed = [(cell, name) for cell in (origin, *cells) for name in cell["files"]]
    paths = [contest.folder / name for _, name in listed]
    splits = make_splits(contest.task, seed=0)
    model = frozen_copy(contest.model, "cpu")
    store = MemberStore(contest.folder, model, contest.task, splits, contest.resolved)
    known_path = contest.folder / "accuracies.json"
    known: dict[str, dict[str, float]] = read_json(known_path) if known_path.is_file() else {}
    for path in paths:
        key = _digest(path)
        if key not in known:
            runtime = RuntimeModule(path, threads=torch.get_num_threads(), target=contest.resolved)
            known[key] = {
                split: score(runtime, contest.task, batches, low_precision=False)
                for split, batches in (("val", splits.val), ("test", splits.test))
            }
            write_json(known_path, known)
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
            file_bytes=path.stat().st_size,
        )
        for (cell, name), path, latency in zip(
            listed, paths, store.time(paths, seconds=seconds), strict=True
        )
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
        "hypervolume": found,
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


def _claim(contest: Contest) -> None:
    """Refuse a folder that another model, target or budget was compared in."""
    path = contest.folder / "contest.json"
    mine = {
        "weights": weights_digest(contest.model),
        "minutes": contest.minutes,
        "trials": contest.trials,
        "target": contest.resolved.to_json(),
        "objectives": list(contest.objectives),
        "constraints": dict(contest.constraints or {}),
        "space": SearchSpace.load(contest.space).model_dump(mode="json"),
    }
    if not path.is_file():
        write_json(path, mine)
        return
    kept = read_json(path)
    changed = [key for key in mine if kept.get(key) != mine[key]]
    if changed:
        raise StudyError(
            explain(
                f"'{contest.folder}'",
                expected="the comparison that was begun there",
                got=f"another {', '.join(changed)}",
                remedy="choose another folder",
            )
        )


def _original(contest: Contest) -> Path:
    return contest.folder / f"{BASELINE}{Path(contest.resolved.file_name).suffix}"


def _inputs(contest: Contest) -> Any:
    batch = next(iter(contest.task.val))
    args, kwargs = example_inputs(contest.task, contest.model, (batch,))
    return kwargs or args


def _feeds(contest: Contest, seed: int) -> list[dict[str, Any]]:
    """Return the calibration batches that searches use, as the original's file takes them."""
    if _original(contest).suffix != ".onnx":
        raise InvalidInputError(
            explain(
                f"target '{contest.resolved.name}'",
                expected="one that runs ONNX files",
                got=_original(contest).name,
                remedy="leave out int8",
            )
        )
    session = open_model(_original(contest), Target.named("onnxruntime-cpu"))
    splits = make_splits(contest.task, seed=seed)
    calls = [contest.task.arguments(contest.model, batch) for batch in splits.calibration]
    return [feed_of(session, (*args, *kwargs.values())) for args, kwargs in calls]


def _files(result: api.SearchResult) -> list[Path]:
    return [member.path for member in result.members]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
