"""The public verbs."""

# The one module that names concrete classes.

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.artifact.export import Artifact, RuntimeModule
from autocompress.artifact.onnx_file import check_exportable
from autocompress.artifact.saturation import resolve_range
from autocompress.artifact.session import check_available
from autocompress.controller.earlier import keep_earlier, read_earlier
from autocompress.controller.joint import JointSampler
from autocompress.controller.knapsack import allocate
from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import SAMPLER_NAMES
from autocompress.controller.search import run_search
from autocompress.controller.setup import (
    SearchSetup,
    check_labels,
    kept_settings,
    study_identity,
    study_settings,
)
from autocompress.controller.storage import study_exists
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.events import Callback, Event, Stop
from autocompress.core.executor import Executor
from autocompress.core.files import write_json, write_text
from autocompress.core.objective import (
    Cost,
    cost_names,
    parse_constraints,
    parse_objectives,
    study_names,
)
from autocompress.core.quantisation import AUTO, OFF, ON, QuantisationConfig
from autocompress.core.recipe import Recipe
from autocompress.core.schema import check_name
from autocompress.core.seeds import check_seed
from autocompress.core.simulation import Accelerator, LookupTable, Roofline
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.measurement import LatencyMeasurement
from autocompress.cost.profile import DeviceProfile
from autocompress.cost.resolve import resolve_target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.devices import measure_latency, profile, warn_of_mismatches
from autocompress.errors import SearchFailedError, check_type
from autocompress.evaluation.original import check_device, frozen_copy, weights_digest
from autocompress.evaluation.splits import (
    Splits,
    check_shapes,
    check_splits,
    epoch_images,
    first_inputs,
    make_splits,
    take,
)
from autocompress.evaluation.synthesis import synthesise
from autocompress.evaluation.task import Task, has_targets
from autocompress.evaluation.teachers import freeze_teachers
from autocompress.front_member import FrontMember
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.tracing import trace
from autocompress.kept_config import text_to_keep
from autocompress.models import check, compress, export, load
from autocompress.predictor.ensemble import AccuracyPredictor
from autocompress.report.environment import environment
from autocompress.report.event_log import EventLog
from autocompress.report.live import ProgressDisplay
from autocompress.report.log_file import LogFile
from autocompress.report.preflight import CheckReport, check_json
from autocompress.result import SearchResult
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.criteria import Criterion

REDUCED = (
    "8-bit weights keep to integers of 7 bits, so that integer kernels that add two products in "
    "16 bits clip nothing; quantisation: {reduce_range: off} uses all 8"
)
"""Told where weights do not reach as far as 8 bits do."""

__all__ = [
    "Accelerator",
    "AccuracyPredictor",
    "Artifact",
    "BoundSpace",
    "Budget",
    "Candidate",
    "CheckReport",
    "CompressedModel",
    "Cost",
    "Criterion",
    "DeviceProfile",
    "DistillConfig",
    "Event",
    "Executor",
    "FrontMember",
    "JointSampler",
    "LatencyMeasurement",
    "LayerConfig",
    "LookupTable",
    "QuantisationConfig",
    "Recipe",
    "Roofline",
    "RuntimeModule",
    "SearchResult",
    "SearchSpace",
    "SimulatedProfile",
    "Stop",
    "Target",
    "Task",
    "TrainingConfig",
    "allocate",
    "check",
    "compress",
    "export",
    "load",
    "measure_latency",
    "open",
    "profile",
    "resume",
    "search",
    "synthesise",
]


def search(
    model: nn.Module,
    task: Task,
    *,
    target: str | Path | Target = "onnxruntime-cpu",
    objectives: Sequence[str] = ("accuracy", "latency_ms"),
    constraints: Mapping[str, float | str] | None = None,
    space: str | Path | Mapping[str, Any] | SearchSpace = "cnn",
    budget: Budget = Budget(trials=100),  # noqa: B008  frozen
    study_dir: str | Path = "runs/study",
    executor: str | Mapping[str, Any] | Executor = "inline",
    storage: str | None = None,
    sampler: str = "joint",
    warm_start: Sequence[str | Path] = (),
    designs: Sequence[Candidate] = (),
    training: TrainingConfig = TrainingConfig(),  # noqa: B008  frozen
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
    teachers: Sequence[nn.Module] = (),
    device: str = "cpu",
    callbacks: Iterable[Callback] = (),
    verbose: bool = True,
    seed: int = 0,
) -> SearchResult:
    """Search the joint compressions of a model, and measure the best on the target.

    Calling it again with the same `study_dir` continues the study; totals of
    the budget then include what was already spent.

    Args:
        model: The trained model; never changed.
        task: Its data, loss and metric.
        target: Name of a target, a `Target`, or the path of a device profile.
        objectives: "accuracy" and at least one cost to minimise.
        constraints: Limits by name, absolute or in percent of the fp32
            artifact, for example `{"accuracy_drop": 0.01, "latency_ms": "60%"}`.
        space: Name of a preset, path of a search space, or a `SearchSpace`.
        budget: Trials and minutes in total.
        study_dir: Folder of the study.
        executor: "inline" runs trials in this process, "ray" several at once by
            Ray Tune; an `Executor` says with how many workers, and where.
        storage: Where a new study keeps its trials: None for a file in `study_dir`,
            "postgresql://user@host/database", "mysql://...", or "journal:/a/file" on
            a network disk. The password of a server is read from the environment
            variable AUTOCOMPRESS_STORAGE_PASSWORD.
        sampler: "joint" learns accuracy and computes costs; "tpe", "random",
            "nsga2", "gp" and "haq" are there to compare with, after the same first designs.
        warm_start: Folders of earlier studies. Their best candidates are tried
            first; where model, weights and data are the same, all that is
            known of their candidates counts, whatever the target was.
        designs: Candidates to begin with, in place of those that are chosen here.
        training: How candidates are cut and quantised while they are trained.
        quantisation: How grids are chosen.
        teachers: Models that teach beside the original; they take the same batches.
        device: Torch device that trains and evaluates.
        callbacks: Called with every `Event`; one that raises `Stop` ends the
            search, which returns what it has, and any other error is raised.
        verbose: Show progress.
        seed: Seed of the run.

    Returns:
        The result, all of it also in `study_dir`.

    Raises:
        AutocompressError: With what, expected, got and the remedy; nothing is
            written when the input is wrong.
    """
    for value, kind in ((model, nn.Module), (task, Task), (budget, Budget)):
        check_type("search", value, kind)
    check_type("'training'", training, TrainingConfig)
    check_type("'quantisation'", quantisation, QuantisationConfig)
    check_seed(seed)
    pool = Executor.of(executor)
    check_name("'sampler'", sampler, SAMPLER_NAMES)
    resolved, given = resolve_target(target)
    goals, limits = parse_objectives(objectives), parse_constraints(constraints)
    resolved.check_costs(cost_names(goals, limits))
    if resolved.simulation is None:
        check_available(resolved)
    chosen = SearchSpace.load(space)
    folder = Path(study_dir)
    quantisation = resolve_range(_kept_range(quantisation, folder), resolved)

    check_device(device)
    if training.data == "synthetic":
        args, kwargs = first_inputs(task, model, next(take(task.val, 2, "val", "cpu")), "cpu")
        given_inputs = ModelInputs(args=args, kwargs=kwargs)
        task = task.with_train(synthesise(model, given_inputs, seed=seed, device=device))
    splits = make_splits(task, seed=seed, device=device)
    inputs = first_inputs(task, model, splits.val[0], device)
    original = frozen_copy(model, device, ModelInputs(args=inputs[0], kwargs=inputs[1]))
    graph = trace(original, ModelInputs(args=inputs[0], kwargs=inputs[1]))
    bound = chosen.bind_graph(graph, resolved, cost_names(goals, limits))
    check_splits(task, original, splits)
    if resolved.simulation is None:
        _check_files(original, inputs, splits, begun=study_exists(folder / "study.db"))
    setup = SearchSetup(
        model=original,
        graph=graph,
        space=bound,
        task=task,
        splits=splits,
        target=resolved,
        profile=given,
        objectives=goals,
        constraints=limits,
        budget=budget,
        study_dir=folder,
        epoch_images=epoch_images(task),
        executor=pool,
        sampler=sampler,
        device=device,
        seed=seed,
        designs=tuple(bound.canonical(check_type("'designs'", c, Candidate)) for c in designs),
        training=training,
        quantisation=quantisation,
        teachers=freeze_teachers(task, original, teachers, splits.val[0], device=device),
    )
    check_labels(bound, training, labelled=all(map(has_targets, splits.recalibration)))
    identity = study_identity(setup, weights_digest(original))
    if not study_exists(folder / "study.db"):
        setup = replace(setup, earlier=read_earlier(warm_start, bound, identity))
    reduced = REDUCED if quantisation.reduce_range == ON else ""
    notes = [*filter(None, [splits.note, reduced]), *warn_of_mismatches(given)]
    settings = study_settings(setup, chosen.model_dump(mode="json"), objectives, constraints or {})
    ledger = Ledger.open(
        folder / "study.db",
        metric_names=study_names(goals),
        identity=identity,
        seed=seed,
        storage=storage,
        first={"earlier": setup.earlier.to_json(), "settings": settings},
    )
    try:
        setup = replace(setup, earlier=keep_earlier(ledger, setup.earlier))
        settings["warm_start"] = list(setup.earlier.folders)
        ledger.set("settings", settings)
        ledger.set("notes", notes)
        ledger.set("structure", check_json(graph))
        write_text(folder / "config.yaml", text_to_keep(folder, settings))
        write_json(folder / "environment.json", environment(resolved, device, seed))
        with ExitStack() as stack:
            logs: list[Callback] = [LogFile(folder / "log.txt", splits.note)]
            listeners = [*logs, EventLog(folder / "log.jsonl"), *callbacks]
            if verbose:
                listeners.append(stack.enter_context(ProgressDisplay()))
            try:
                run_search(setup, ledger, listeners)
            except SearchFailedError:
                SearchResult(folder).write_trials()  # with the reason of every failure
                raise
            except Stop as stop:
                if stop.__cause__ is not None:  # what a callback raised
                    raise stop.__cause__ from None
    finally:
        ledger.close()
    result = SearchResult(folder, original=model, space=bound)
    result.report()
    return result


def _check_files(
    original: nn.Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    splits: Splits,
    *,
    begun: bool,
) -> None:
    """Refuse what files cannot take; what a study has written before can be exported."""
    check_shapes(splits)
    if not begun:
        check_exportable(original, inputs)


def _kept_range(quantisation: QuantisationConfig, folder: Path) -> QuantisationConfig:
    """Let weights reach as far as in the study that is continued, whatever host it is now on."""
    if quantisation.reduce_range != AUTO or not study_exists(folder / "study.db"):
        return quantisation
    ledger = Ledger.read(folder / "study.db")
    try:
        settings = ledger.get("settings") or {}
    finally:
        ledger.close()
    kept = settings.get("quantisation", {}).get("reduce_range", OFF)
    return replace(quantisation, reduce_range=kept)


def resume(
    study_dir: str | Path,
    model: nn.Module,
    task: Task,
    *,
    budget: Budget | None = None,
    teachers: Sequence[nn.Module] = (),
    executor: str | Mapping[str, Any] | Executor | None = None,
    callbacks: Iterable[Callback] = (),
    verbose: bool = True,
) -> SearchResult:
    """Continue a study with the settings that it keeps.

    Args:
        study_dir: Folder of the study.
        model: The model of the study.
        task: The task of the study.
        budget: New totals; None keeps the old ones.
        teachers: Teachers beside the original, if the study had some.
        executor: Where trials run from now on; None keeps it.
        callbacks: Called with every `Event`.
        verbose: Show progress.

    Raises:
        MissingFileError: If there is no study.
        StudyError: If the study belongs to another model or other data.
    """
    settings = kept_settings(Path(study_dir))
    return search(
        model,
        task,
        target=Path(study_dir) / "profile.json"
        if settings.get("profile_given")
        else Target.from_json(settings["target"]),
        objectives=settings["objectives"],
        constraints=settings["constraints"],
        space=settings["space"],
        budget=budget if budget is not None else Budget(**settings["budget"]),
        study_dir=study_dir,
        executor=settings.get("executor", "inline") if executor is None else executor,
        sampler=settings["sampler"],
        designs=[Candidate.from_json(record) for record in settings.get("designs", [])],
        training=TrainingConfig.from_mapping(settings.get("training", {})),
        quantisation=QuantisationConfig.from_mapping(settings.get("quantisation", {})),
        teachers=teachers,
        device=settings["device"],
        callbacks=callbacks,
        verbose=verbose,
        seed=settings["seed"],
    )


def open(study_dir: str | Path) -> SearchResult:
    """Read the result of a study without changing it.

    Raises:
        MissingFileError: If there is no study in the folder.
    """
    return SearchResult(study_dir)
