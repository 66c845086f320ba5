"""What every method of a comparison is given, and how each spends it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from autocompress import api
from autocompress.artifact.export import feed_of
from autocompress.artifact.saturation import saturates
from autocompress.artifact.session import open_model
from autocompress.artifact.static_int8 import static_int8
from autocompress.config import SearchConfig
from autocompress.controller.designs import ladder_start, plain_int8
from autocompress.controller.ledger import Ledger
from autocompress.controller.methods import (
    PRUNING_STEP,
    SEQUENTIAL,
    STATIC,
    UNIFORM,
    Method,
)
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.executor import Executor
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.resolve import resolve_target
from autocompress.errors import InvalidInputError, explain
from autocompress.evaluation.splits import example_inputs, make_splits
from autocompress.evaluation.task import Task
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace

BASELINE = "original"
"""Name of the fp32 file that everything is compared with."""


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
        teachers: Further teachers, as in `search`.
        executor: Where trials run, as in `search`.
        device: Torch device that trains.
        trials: Trials of one search at most; None for no limit but the minutes.
        finalists: Candidates that one search trains fully, at most; None lets the time decide.
    """

    model: nn.Module
    task: Task
    folder: Path
    minutes: float = 10.0
    target: str | Path | Target = "onnxruntime-cpu"
    objectives: tuple[str, ...] = ("accuracy", "latency_ms")
    constraints: Mapping[str, float | str] | None = None
    space: str | Path | Mapping[str, Any] | SearchSpace = "cnn"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    quantisation: QuantisationConfig = field(default_factory=QuantisationConfig)
    teachers: tuple[nn.Module, ...] = ()
    executor: str | Mapping[str, Any] | Executor = "inline"
    device: str = "cpu"
    trials: int | None = None
    finalists: int | None = None

    @cached_property
    def judged(self) -> Task:
        """The task, with the same `val` and `test` for all seeds where it has no `test`."""
        if self.task.test is not None:
            return self.task
        splits = make_splits(self.task, seed=0)
        return self.task.with_test(splits.val, splits.test)

    @property
    def resolved(self) -> Target:
        """The target itself."""
        return resolve_target(self.target)[0]

    def budget(self, minutes: float, trials: int | None) -> Budget:
        """Return the budget of one search."""
        return Budget(minutes=minutes, trials=trials, finalists=self.finalists)

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
            "budget": self.budget(minutes, self.trials),
            "sampler": method.sampler,
            "training": training,
            "quantisation": self.quantisation,
            "teachers": self.teachers,
            "executor": self.executor,
            "device": self.device,
        }
        return api.search(
            self.model, self.judged, study_dir=folder, seed=seed, verbose=False, **(given | changes)
        )


def contest_of(config: SearchConfig, folder: Path) -> Contest:
    """Make a contest of the configuration of a search.

    Raises:
        InvalidInputError: If its budget has no minutes, which are what methods are given alike.
    """
    if config.budget.minutes is None:
        raise InvalidInputError(
            explain(
                "budget 'minutes'",
                expected="the time of every run",
                got="none",
                remedy="give --minutes, or write minutes: 10",
            )
        )
    return Contest(
        model=config.make_model(),
        task=config.make_task(),
        folder=folder.absolute(),
        minutes=config.budget.minutes,
        trials=config.budget.trials,
        finalists=config.budget.finalists,
        target=config.make_target(),
        objectives=config.objectives,
        constraints=config.constraints,
        space=config.space_name_or_path(),
        training=config.make_training(),
        quantisation=config.make_quantisation(),
        teachers=tuple(config.make_teachers()),
        executor=config.make_executor(),
        device=config.device,
    )


def run_method(contest: Contest, method: Method, folder: Path, seed: int) -> list[Path]:
    """Let one method compress the model; return the files that it made."""
    if method.recipe == STATIC:
        return [
            static_int8(
                original_path(contest),
                folder / "int8.onnx",
                _feeds(contest, seed),
                reduce_range=saturates(contest.resolved),
            )
        ]
    if method.recipe == SEQUENTIAL:
        pruning = replace(method, space=PRUNING_STEP)
        half = contest.minutes / 2
        pruned = contest.search(pruning, folder / "prune", seed=seed, minutes=half)
        candidates = [member.candidate for member in pruned.front or pruned.members]
        return _distil(contest, method, folder, seed, half, candidates)
    if method.recipe == UNIFORM:
        bound, ratios = _bound(contest, method), SearchSpace.load(contest.space).pruning.ratios
        candidates = [bound.uniform(32, 32, ratio) for ratio in ratios]
        return _train_given(contest, method, folder, seed, contest.minutes, candidates)
    start = [ladder_start(_bound(contest, method))] if method.bare else []
    return _files(contest.search(method, folder, seed=seed, minutes=contest.minutes, designs=start))


def _distil(
    contest: Contest,
    method: Method,
    folder: Path,
    seed: int,
    minutes: float,
    candidates: Sequence[Candidate],
) -> list[Path]:
    """Take the second step of `SEQUENTIAL`: what the first one has pruned goes on from its weights.

    The profile is there, and the baselines are measured again beside the minutes.
    """
    first, second = folder / "prune", folder / "distil"
    kept = second / "checkpoints"
    for trained in sorted((first / "checkpoints").glob("*.safetensors")):
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained, kept / f"pruned-{trained.name}")
    again = 0.0
    if (first / "study.db").is_file():
        ledger = Ledger.read(first / "study.db")
        again = float(ledger.get("baseline_s", 0.0))
        ledger.close()
    minutes += again / 60.0
    profile = first / "profile.json"
    return _train_given(contest, method, second, seed, minutes, candidates, target=profile)


def _train_given(
    contest: Contest,
    method: Method,
    folder: Path,
    seed: int,
    minutes: float,
    candidates: Sequence[Candidate],
    **changes: Any,
) -> list[Path]:
    """Fine-tune pruned candidates with 8 bits everywhere; nothing else is searched."""
    bound = _bound(contest, method)
    layers = plain_int8(bound).layers
    designs = dict.fromkeys(bound.canonical(replace(c, layers=layers)) for c in candidates)
    trials = 1 + len({ladder_start(bound), *designs})  # the original, and plain int8 in any case
    result = contest.search(
        method,
        folder,
        seed=seed,
        minutes=minutes,
        designs=list(designs),
        sampler="random",
        budget=contest.budget(minutes, trials),
        **changes,
    )
    return _files(result)


def export_original(contest: Contest) -> Path:
    """Write the fp32 file of the original once; return its path."""
    path = original_path(contest)
    if not path.is_file():
        compressed = api.compress(contest.model, Candidate(), _inputs(contest))
        api.export(compressed, path, _inputs(contest), target=contest.resolved)
    return path


def original_path(contest: Contest) -> Path:
    """Return where the fp32 file of the original is."""
    return contest.folder / f"{BASELINE}{Path(contest.resolved.file_name).suffix}"


def _bound(contest: Contest, method: Method) -> BoundSpace:
    """Return what a method may vary in the model."""
    space = method.space_of(SearchSpace.load(contest.space))
    return space.bind(contest.model, _inputs(contest), contest.resolved)


def _inputs(contest: Contest) -> Any:
    batch = next(iter(contest.task.val))
    args, kwargs = example_inputs(contest.task, contest.model, (batch,))
    return kwargs or args


def _feeds(contest: Contest, seed: int) -> list[dict[str, Any]]:
    """Return the calibration batches that searches use, as the original's file takes them."""
    if original_path(contest).suffix != ".onnx":
        raise InvalidInputError(
            explain(
                f"target '{contest.resolved.name}'",
                expected="one that runs ONNX files",
                got=original_path(contest).name,
                remedy="leave out int8",
            )
        )
    session = open_model(original_path(contest), Target.named("onnxruntime-cpu"))
    splits = make_splits(contest.judged, seed=seed)
    calls = [contest.task.arguments(contest.model, batch) for batch in splits.calibration]
    return [feed_of(session, args, kwargs) for args, kwargs in calls]


def _files(result: api.SearchResult) -> list[Path]:
    return [member.path for member in result.members]
