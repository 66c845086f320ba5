"""The verbs that concern one model: check, compress, export and load it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.artifact.export import Artifact, export_artifact, export_float
from autocompress.artifact.packed import read_packed
from autocompress.controller.preflight import check_model
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import TARGET_NAMES, Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.resolve import resolve_target
from autocompress.errors import check_type
from autocompress.evaluation.calibration import compress_on
from autocompress.evaluation.original import frozen_copy
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.tracing import trace
from autocompress.report.preflight import CheckReport
from autocompress.space.preset import SearchSpace
from autocompress.transform.compressed import CompressedModel


def check(
    model: nn.Module,
    example_inputs: object,
    *,
    space: str | Path | Mapping[str, Any] | SearchSpace = "cnn",
    task: Task | None = None,
    budget: Budget | None = None,
    training: TrainingConfig | None = None,
) -> CheckReport:
    """Find what can be compressed in a model, what cannot and why, and what it could give.

    Args:
        model: Any module; not changed.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        space: Which groups and blocks may be cut, and how far; what it
            leaves out is listed with that reason.
        task: Tried as `search` would; with `budget`, tells how long a search takes.
        budget: With `task`, likewise.
        training: Lengths of trainings, for the same; None for the defaults.

    Returns:
        `.groups`, `.blocks`, `.layers`, `.savings`, `.search_seconds` and `.accuracy`;
        `.to_dict()` is all of it for JSON, and `print` shows it as tables.

    Raises:
        TraceError: If the model does not run on the inputs.
        InvalidInputError: If a search would refuse the task.
    """
    found = check_model(model, example_inputs, SearchSpace.load(space), task, budget, training)
    return CheckReport.of(found)


def compress(
    model: nn.Module,
    candidate: Candidate,
    example_inputs: object,
    *,
    task: Task | None = None,
    calibration: Iterable[Batch] | None = None,
    target: str | Target | None = None,
    pruning_ratio: float | None = None,
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
) -> CompressedModel:
    """Apply a candidate to a copy of a model, without training.

    Args:
        model: The trained model; never changed.
        candidate: What to do.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        task: Its `train` batches recalibrate batch norms and activation
            grids, and are what criteria read that need data or labels.
        calibration: Batches for the grids, and without a task for
            criteria; as the task's, or with the example inputs' arguments
            first. None takes the task's, or else the example inputs.
        target: Its runtime must execute the activation bits; None allows all. It also
            tells whether 8-bit weights keep to 7 bits, None as "onnxruntime-cpu" does.
        pruning_ratio: Fraction of all channels to remove, [0, 1), those that
            the criterion scores lowest in one ranking of all groups; none is
            emptied. None prunes as the candidate says.
        quantisation: How grids are chosen.

    Returns:
        A new module that carries its surgery record.

    Raises:
        InvalidInputError: If the candidate does not fit, or needs labels and has no task.
    """
    check_type("'candidate'", candidate, Candidate)
    inputs = ModelInputs.of(example_inputs)
    original = frozen_copy(model, "cpu", inputs)
    return compress_on(
        original,
        trace(original, example_inputs),
        candidate,
        inputs,
        quantisation,
        task=task,
        calibration=calibration,
        target=None if target is None else resolve_target(target)[0],
        pruning_ratio=pruning_ratio,
    )


def export(
    compressed: CompressedModel,
    path: str | Path,
    example_inputs: object,
    *,
    target: str | Target | None = None,
) -> Artifact:
    """Write the ONNX file of a compressed model, and its packed weights beside it.

    Those of `model.onnx` are `weights.packed`, those of `name.onnx` `name.packed`.

    Args:
        compressed: From `compress`, or a member's `model()`.
        path: The ONNX file to write; its batch axis is dynamic. Without a
            target, a name that ends in ".pt2" gets a `torch.export` program in
            floating point: pruned and trained, with the values that the codes
            of quantised weights stand for, and activations as they come.
        example_inputs: A tensor, a tuple, or a dict of one forward call.
        target: Where it will run; None is "onnxruntime-cpu".

    Raises:
        ExportError: If the file would not run there, or not reproduce the model.
    """
    inputs = ModelInputs.of(example_inputs)
    call = (inputs.args, inputs.kwargs)
    if target is None and Path(path).suffix == ".pt2":
        return export_float(compressed, Path(path), call)
    resolved = resolve_target(TARGET_NAMES[0] if target is None else target)[0]
    return export_artifact(compressed, Path(path), call, target=resolved)


def load(packed_path: str | Path, model: nn.Module) -> CompressedModel:
    """Rebuild a compressed module from its packed weights.

    Args:
        packed_path: The file.
        model: The original architecture, with any weights; not changed.
    """
    check_type("'model'", model, nn.Module)
    return read_packed(Path(packed_path), model)
