"""The public verbs; the one module that names concrete classes."""

import dataclasses
import hashlib
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from autocompress.artifact.export import Artifact, RuntimeModule, export_artifact, feed_of
from autocompress.artifact.onnx_file import check_exportable
from autocompress.artifact.packed import read_packed
from autocompress.artifact.runtime import open_session
from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import SAMPLER_NAMES
from autocompress.controller.search import Search, SearchSetup, study_identity
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.events import Callback, Event
from autocompress.core.files import write_json, write_text
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.schema import unknown_name
from autocompress.core.target import TARGET_NAMES, Target
from autocompress.cost.measurement import LatencyMeasurement, device_name, measure_interleaved
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    StudyError,
    WrongTypeError,
    explain,
)
from autocompress.evaluation.proxy import recalibrate_batch_norms
from autocompress.evaluation.splits import example_inputs as first_inputs
from autocompress.evaluation.splits import make_splits, size, take
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.inputs import ModelInputs, one_line, plain_copy
from autocompress.graph.structure import ModelGraph as CheckReport
from autocompress.graph.tracing import trace
from autocompress.report.console import ProgressDisplay
from autocompress.result import FrontMember, SearchResult
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from autocompress.transform.compress import calibrate_grids, compress_model
from autocompress.transform.compressed import CompressedModel

__all__ = [
    "Artifact",
    "BoundSpace",
    "Budget",
    "Candidate",
    "CheckReport",
    "CompressedModel",
    "DeviceProfile",
    "DistillConfig",
    "Event",
    "FrontMember",
    "LatencyMeasurement",
    "LayerConfig",
    "RuntimeModule",
    "SearchResult",
    "SearchSpace",
    "Target",
    "Task",
    "check",
    "compress",
    "export",
    "load",
    "measure_latency",
    "open",
    "profile",
    "resume",
    "search",
]

EXECUTORS = ("inline",)
"""Where trials can run."""

DEFAULT_EPOCH = 50_000
"""Training images assumed of an epoch when the loader has no length."""


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
    executor: str = "inline",
    sampler: str = "tpe",
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
        executor: "inline" runs trials in this process.
        sampler: "tpe", "random" or "nsga2".
        device: Torch device that trains and evaluates.
        callbacks: Called with every `Event`.
        verbose: Show progress.
        seed: Seed of the run.

    Returns:
        The result, all of it also in `study_dir`.

    Raises:
        AutocompressError: With what, expected, got and the remedy; nothing is
            written when the input is wrong.
    """
    for value, kind in ((model, nn.Module), (task, Task), (budget, Budget)):
        if not isinstance(value, kind):
            raise WrongTypeError(
                explain(
                    "search",
                    expected=f"a {kind.__name__}",
                    got=type(value).__name__,
                    remedy="check the order of the arguments",
                )
            )
    if executor not in EXECUTORS:
        raise InvalidInputError(
            explain(
                "'executor'",
                expected=" or ".join(map(repr, EXECUTORS)),
                got=repr(executor),
                remedy="write executor='inline'",
            )
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise WrongTypeError(
            explain("'seed'", expected="an integer", got=repr(seed), remedy="write seed=0")
        )
    if sampler not in SAMPLER_NAMES:
        raise InvalidInputError(unknown_name("'sampler'", str(sampler), SAMPLER_NAMES))
    resolved, given = _target(target)
    goals, limits = parse_objectives(objectives), parse_constraints(constraints)
    chosen = SearchSpace.load(space)
    folder = Path(study_dir)

    original = _frozen_copy(model, device)
    splits = make_splits(task, seed=seed, device=device)
    inputs = first_inputs(splits.val)
    graph = trace(original, inputs[0] or inputs[1])
    costs = [goal.name for goal in goals if goal.name != "accuracy"]
    costs += [limit.name for limit in limits if not limit.name.startswith("accuracy")]
    bound = chosen.bind_graph(graph, resolved, costs)
    for name, batches in (
        ("train", splits.recalibration),
        ("val", splits.val),
        ("test", splits.test),
    ):
        _check_outputs(original, task, name, batches[0])
    if not (folder / "study.db").is_file():
        check_exportable(original, inputs)
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
        epoch_images=_epoch_images(task),
        sampler=sampler,
        device=device,
        seed=seed,
    )
    settings = {
        "target": resolved.to_json(),
        "objectives": list(objectives),
        "constraints": dict(constraints or {}),
        "space": chosen.model_dump(mode="json"),
        "budget": dataclasses.asdict(budget),
        "sampler": sampler,
        "device": device,
        "seed": seed,
    }
    ledger = Ledger.open(
        folder / "study.db",
        metric_names=["1 - accuracy", *(goal.name for goal in goals[1:])]
        if goals[0].name == "accuracy"
        else [goal.name for goal in goals],
        identity=study_identity(setup, _weights_digest(original)),
        seed=seed,
    )
    try:
        ledger.set("settings", settings)
        ledger.set("notes", [splits.note] if splits.note else [])
        write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
        write_json(folder / "environment.json", _environment(resolved, device, seed))
        with ExitStack() as stack:
            listeners: list[Callback] = [_LogFile(folder / "log.txt", splits.note), *callbacks]
            if verbose:
                listeners.append(stack.enter_context(ProgressDisplay()))
            Search(setup, ledger, listeners).run()
    finally:
        ledger.close()
    result = SearchResult(folder, original=model)
    result.report()
    return result


def resume(
    study_dir: str | Path,
    model: nn.Module,
    task: Task,
    *,
    budget: Budget | None = None,
    callbacks: Iterable[Callback] = (),
    verbose: bool = True,
) -> SearchResult:
    """Continue a study with the settings that it keeps.

    Args:
        study_dir: Folder of the study.
        model: The model of the study.
        task: The task of the study.
        budget: New totals; None keeps the old ones.
        callbacks: Called with every `Event`.
        verbose: Show progress.

    Raises:
        MissingFileError: If there is no study.
        StudyError: If the study belongs to another model or other data.
    """
    ledger = Ledger.read(Path(study_dir) / "study.db")
    try:
        settings = ledger.get("settings")
    finally:
        ledger.close()
    if settings is None:
        raise StudyError(
            explain(
                f"study '{study_dir}'",
                expected="the settings of its search",
                got="none",
                remedy="run search with a new study_dir",
            )
        )
    return search(
        model,
        task,
        target=Target.from_json(settings["target"]),
        objectives=settings["objectives"],
        constraints=settings["constraints"],
        space=settings["space"],
        budget=budget if budget is not None else Budget(**settings["budget"]),
        study_dir=study_dir,
        sampler=settings["sampler"],
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


def check(model: nn.Module, example_inputs: object) -> CheckReport:
    """Find what can be compressed in a model, and what cannot and why.

    Args:
        model: Any module; not changed.
        example_inputs: A tensor, a tuple, or a dict of one forward call.

    Returns:
        `.groups`, `.blocks` and `.layers`.

    Raises:
        TraceError: If the model cannot be followed.
    """
    return trace(model, example_inputs)


def compress(
    model: nn.Module,
    candidate: Candidate,
    example_inputs: object,
    *,
    task: Task | None = None,
    calibration: Iterable[Batch] | None = None,
    target: str | Target | None = None,
) -> CompressedModel:
    """Apply a candidate to a copy of a model, without training.

    Args:
        model: The trained model; never changed.
        candidate: What to do.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        task: Its `train` batches recalibrate batch norms and activation grids.
        calibration: Batches for the activation grids, as the task's, or with
            the example inputs' arguments first; None takes them from the
            task, or else the example inputs.
        target: Its runtime must execute the activation bits; None allows all.

    Returns:
        A new module that carries its surgery record.
    """
    resolved = None if target is None else _target(target)[0]
    inputs = ModelInputs.of(example_inputs)
    original = _frozen_copy(model, "cpu")
    if resolved is not None:
        for name, config in candidate.layers.items():
            if config.activation_bits not in (*resolved.activation_bits, 32):
                raise InvalidInputError(
                    explain(
                        f"layer '{name}' on {resolved.name}",
                        expected=f"activation bits among {list(resolved.activation_bits)}",
                        got=config.activation_bits,
                        remedy="choose other bits or another target",
                    )
                )
    graph = trace(original, example_inputs)
    compressed = compress_model(original, graph, candidate, (inputs.args, inputs.kwargs))
    batches: list[Batch] = []
    if task is not None:
        batches = list(take(task.train, 2000, "train", "cpu"))
        if compressed.record.cuts or compressed.record.dropped_blocks:
            compressed.quantise_activations = False
            recalibrate_batch_norms(compressed, task, batches)
            compressed.quantise_activations = True
    if compressed.record.plan.sites:
        if calibration is not None:
            calibrate_grids(compressed, calibration, _run_batch(task, inputs))
        elif task is not None:
            calibrate_grids(compressed, batches[:8], task.run)
        else:
            calibrate_grids(compressed, [example_inputs], _run_batch(None, inputs))
    return compressed


def export(
    compressed: CompressedModel,
    path: str | Path,
    example_inputs: object,
    *,
    target: str | Target | None = None,
) -> Artifact:
    """Write the ONNX file of a compressed model, and `weights.packed` beside it.

    Args:
        compressed: From `compress`, or a member's `model()`.
        path: The ONNX file to write; its batch axis is dynamic.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        target: Where it will run; None is "onnxruntime-cpu".

    Raises:
        ExportError: If the file would not run there, or not reproduce the model.
    """
    inputs = ModelInputs.of(example_inputs)
    resolved = _target(TARGET_NAMES[0] if target is None else target)[0]
    return export_artifact(compressed, Path(path), (inputs.args, inputs.kwargs), target=resolved)


def load(packed_path: str | Path, model: nn.Module) -> CompressedModel:
    """Rebuild a compressed module from `weights.packed`.

    Args:
        packed_path: The file.
        model: The original architecture, with any weights; not changed.
    """
    return read_packed(Path(packed_path), model)


def profile(
    target: str | Target = "onnxruntime-cpu",
    *,
    space: BoundSpace,
    out: str | Path | None = None,
    threads: int = 1,
    seconds: float = 60.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DeviceProfile:
    """Measure the kernels of a search space on this host.

    Args:
        target: Name of a target, or a `Target`.
        space: The space, bound to a model.
        out: File to save the profile to; None saves nothing.
        threads: Threads per inference, for a target given by name.
        seconds: Time for the measurement.
        on_progress: Told how many kernels are done, and of how many.
    """
    resolved = target if isinstance(target, Target) else Target.named(target, threads=threads)
    measured = profile_device(
        space.graph, space.pruning_choices, resolved, seconds=seconds, on_progress=on_progress
    )
    if out is not None:
        measured.save(Path(out))
    return measured


def measure_latency(
    artifact: Artifact | str | Path,
    target: str | Target,
    example_inputs: object,
    *,
    seconds: float = 20.0,
) -> LatencyMeasurement:
    """Measure an artifact alone; `median_ms`, `ci95_ms` and raw `samples`.

    Args:
        artifact: From `export`, or the path of an ONNX file.
        target: How it runs: threads and batch size.
        example_inputs: A tensor, a tuple, or a dict of one forward call; the
            first examples are repeated to the target's batch size.
        seconds: Time for the measurement.
    """
    resolved = _target(target)[0]
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    session = open_session(path, threads=resolved.threads)
    batch = [
        tensor[torch.arange(resolved.batch_size) % len(tensor)]
        for tensor in ModelInputs.of(example_inputs).tensors
    ]
    feed = feed_of(session, batch)
    return measure_interleaved([session], feed, threads=resolved.threads, max_seconds=seconds)[0]


class _LogFile:
    """Appends one line per event to a file."""

    def __init__(self, path: Path, note: str) -> None:
        self._path, self._note = path, note

    def __call__(self, event: Event) -> None:
        """Append an event."""
        lines = [self._note] if self._note else []
        lines.append(event.message)
        self._note = ""
        with self._path.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{event.elapsed_s:9.1f} s  {event.stage:<11} {line}\n")


def _target(target: str | Path | Target) -> tuple[Target, DeviceProfile | None]:
    """Resolve a target; a path gives the profile, and the target it was made for."""
    if isinstance(target, Target):
        return target, None
    if isinstance(target, Path) or (isinstance(target, str) and target.endswith(".json")):
        given = DeviceProfile.load(Path(target))
        return given.target, given
    return Target.named(target), None


def _frozen_copy(model: nn.Module, device: str) -> nn.Module:
    """Copy a model for reading: float32, eval mode, on the device, images channels-last."""
    if not isinstance(model, nn.Module):
        raise WrongTypeError(
            explain(
                "model",
                expected="a torch.nn.Module",
                got=type(model).__name__,
                remedy="pass the trained module itself",
            )
        )
    frozen = plain_copy(model)
    try:
        frozen = frozen.to(device)
    except (AssertionError, RuntimeError) as error:  # torch raises the first where CUDA is missing
        raise InvalidInputError(
            explain(
                "'device'",
                expected="a device that torch has here",
                got=f"{device!r} ({one_line(error)})",
                remedy="write device='cpu'",
            )
        ) from error
    if any(parameter.dim() == 4 for parameter in frozen.parameters()):
        frozen = frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return frozen.requires_grad_(True)


def _check_outputs(model: nn.Module, task: Task, name: str, batch: Batch) -> None:
    """Try one batch of a split: its outputs, its score and its loss."""
    try:
        with torch.inference_mode():
            outputs = task.run(model, batch)
            task.score(outputs, batch)
            task.loss(outputs, batch)
    except AutocompressError:
        raise
    except Exception as error:
        raise InvalidInputError(
            explain(
                f"task '{name}'",
                expected="batches that the model, the metric and the loss take",
                got=one_line(error),
                remedy="check the shapes and the order of what a batch holds",
            )
        ) from error
    if not bool(torch.isfinite(outputs).all()):
        raise InvalidInputError(
            explain(
                "model",
                expected="finite outputs",
                got=f"NaN or infinities on the first batch of {name}",
                remedy="check the weights and the inputs' normalisation",
            )
        )


def _run_batch(task: Task | None, examples: ModelInputs) -> Callable[[nn.Module, Batch], object]:
    """Tell how to run a batch: as the task does, or on the arguments of the examples."""

    def run(model: nn.Module, batch: Batch) -> object:
        if task is not None:
            return task.run(model, batch)
        given = ModelInputs.of(batch)
        kwargs = {key: value for key, value in given.kwargs.items() if key in examples.kwargs}
        return model(*given.args[: len(examples.args)], **kwargs)

    return run


def _epoch_images(task: Task) -> int:
    """Estimate the images of one epoch: length of the loader times its first batch."""
    try:
        batches = len(task.train)  # type: ignore[arg-type]
    except TypeError:
        return DEFAULT_EPOCH
    with torch.random.fork_rng(devices=[]):
        first = next(iter(task.train))
    return batches * size(first)


def _weights_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _environment(target: Target, device: str, seed: int) -> dict[str, Any]:
    packages = ("autocompress", "torch", "optuna", "onnx", "onnxruntime", "torch-pruning", "numpy")
    return {
        "processor": device_name(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "target": f"{target.name}, {target.threads} threads, batch {target.batch_size}",
        "device": device,
        "seed": seed,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **{name: version(name) for name in packages},
    }
