"""Members on disk: one folder each, exported, verified and measured."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.artifact.exact import ExactModel
from autocompress.artifact.example_call import tensors_of
from autocompress.artifact.export import RuntimeModule, export_artifact, on_cpu
from autocompress.artifact.packed import read_packed, write_packed
from autocompress.core.evaluation import MeasuredMember, front_document
from autocompress.core.files import read_json, write_json, write_text
from autocompress.core.objective import Constraint, Objective, known_costs
from autocompress.core.pareto import non_dominated_mask
from autocompress.core.target import Target
from autocompress.cost.measurement import LatencyMeasurement, measure_interleaved
from autocompress.errors import MismatchError, explain
from autocompress.evaluation.batches import count, place
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import Splits, example_inputs
from autocompress.evaluation.task import Batch, Task
from autocompress.transform.compressed import CompressedModel

ACCURACY_TOLERANCE = 0.002
"""Difference of accuracy between a file and its torch model that is allowed."""

FIRST_EXAMPLES = 1_000
"""Examples of `val` on which equal accuracies are enough."""


class MemberStore:
    """Writes and reads the members of a study under `front/`.

    Args:
        study_dir: The study's folder.
        model: The original, which tells how a batch reaches a model.
        task: Scores the artifacts.
        splits: Validation and test batches.
        target: Where artifacts run.
    """

    def __init__(
        self, study_dir: Path, model: nn.Module, task: Task, splits: Splits, target: Target
    ) -> None:
        self.study_dir, self.model, self.task = study_dir, model, task
        self.splits, self.target = splits, target

    def write(
        self,
        name: str,
        model: CompressedModel,
        predicted: Mapping[str, float],
        costs: Mapping[str, float],
        *,
        origin: str,
        trained_images: int,
    ) -> MeasuredMember:
        """Export a settled model, verify the file, and score it on `val` and `test`.

        A member of the same name is replaced once the new files are verified,
        and is incomplete until it is measured; a refused one leaves nothing.

        Args:
            name: The member's id.
            model: Settled, calibrated in float32.
            predicted: Predicted values by name.
            costs: Counted costs by name; latency is not among them.
            origin: What proposed the candidate.
            trained_images: Training images that its weights have seen.

        Returns:
            The member, its latency not measured yet.

        Raises:
            ExportError: If the file does not reproduce the model.
        """
        staging = self.study_dir / "front" / f".{name}"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            member = self._written(
                staging, name, model, predicted, costs, origin=origin, trained_images=trained_images
            )
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        folder = self.study_dir / "front" / name
        if folder.exists():
            (folder / "metrics.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
        staging.rename(folder)
        return member

    def _written(
        self,
        folder: Path,
        name: str,
        model: CompressedModel,
        predicted: Mapping[str, float],
        costs: Mapping[str, float],
        *,
        origin: str,
        trained_images: int,
    ) -> MeasuredMember:
        args, kwargs = example_inputs(self.task, model, self.splits.val)
        exact: nn.Module = model
        runtime: nn.Module
        batches = self.splits.val
        if self.target.simulation is None:
            path = folder / self.target.file_name
            artifact = export_artifact(model, path, (args, kwargs), target=self.target)
            with torch.inference_mode():
                like = model(*args, **kwargs)
            threads = torch.get_num_threads()
            runtime = RuntimeModule(path, threads=threads, like=like, target=self.target)
            exact = ExactModel(*on_cpu(model, (args, kwargs)))
            batches = tuple(place(batch, "cpu") for batch in batches)
            sizes = {"size_bytes": artifact.size_bytes, "onnx_bytes": artifact.onnx_bytes}
        else:  # runs nowhere: the file is the packed one
            path = folder / "weights.packed"
            sizes = {"size_bytes": write_packed(model, path)}
            runtime = read_packed(path, self.model)
        val_accuracy = self._verify(exact, runtime, path, batches)
        measured = {
            "val_accuracy": val_accuracy,
            "accuracy": score(runtime, self.task, self.splits.test, low_precision=False),
            "val_images": count(self.splits.val),
            "test_images": count(self.splits.test),
            **sizes,
            **{key: costs[key] for key in known_costs() if key in costs and key not in sizes},
            "trained_images": trained_images,
            "origin": origin,
        }
        written = MeasuredMember(
            id=name,
            candidate=model.record.candidate,
            predicted=dict(predicted),
            measured=measured,
            path=f"front/{name}/{path.name}",
        )
        write_text(folder / "candidate.json", written.candidate.to_json() + "\n")
        return written

    def measure(self, members: Sequence[MeasuredMember], *, seconds: float) -> list[MeasuredMember]:
        """Measure the latency of members in one interleaved run; the first is the reference.

        Args:
            members: Written members.
            seconds: Time for the whole run.

        Returns:
            The members with "latency_ms" and its interval measured, saved.
        """
        paths = [self.study_dir / member.path for member in members]
        measurements = self.time(paths, seconds=seconds)
        measured = [
            replace(member, measured={**member.measured, **_latency(measurement, measurements[0])})
            for member, measurement in zip(members, measurements, strict=True)
        ]
        for member in measured:
            self.save(member)
        return measured

    def simulate(
        self, members: Sequence[MeasuredMember], costs: Sequence[Mapping[str, float]]
    ) -> list[MeasuredMember]:
        """Give members what a simulated target says of them, and save them.

        Args:
            members: Written members.
            costs: "latency_ms" and other costs of each.
        """
        simulated = [
            replace(member, measured={**member.measured, **found, **self._simulated(found)})
            for member, found in zip(members, costs, strict=True)
        ]
        for member in simulated:
            self.save(member)
        return simulated

    def _simulated(self, costs: Mapping[str, float]) -> dict[str, Any]:
        return {
            "latency_ci95_ms": [costs["latency_ms"]] * 2,
            "device": f"{self.target.name}, simulated",
            "threads": self.target.threads,
            "batch_size": self.target.batch_size,
        }

    def time(self, paths: Sequence[Path], *, seconds: float) -> list[LatencyMeasurement]:
        """Time ONNX files side by side on a batch of `val`; the first is the reference."""
        batch = self.splits.val[0]
        args, kwargs = example_inputs(self.task, self.model, (batch,), self.target.batch_size)
        tensors = tensors_of((args, kwargs))
        arrays = [_of_size(tensor, self.target.batch_size) for tensor in tensors]
        return measure_interleaved(
            paths,
            arrays,
            threads=self.target.threads,
            runtime=self.target.runtime,
            max_seconds=seconds,
        )

    def predict(self, name: str, values: Mapping[str, float]) -> None:
        """Give a member on disk what was predicted of it, if it has nothing yet."""
        for member in read_members(self.study_dir):
            if member.id == name and not member.predicted:
                self.save(replace(member, predicted=dict(values)))

    def save(self, member: MeasuredMember) -> None:
        """Write a member's `metrics.json`, which marks it complete."""
        write_json(self.study_dir / "front" / member.id / "metrics.json", member.to_json())

    def _verify(
        self, model: nn.Module, runtime: nn.Module, path: Path, batches: Sequence[Batch]
    ) -> float:
        """Compare accuracies on `val`; return that of the file, on all of it.

        The model is computed as the runtime rounds: otherwise predictions differ
        by chance, not by what is wrong with the file. They may differ by
        `ACCURACY_TOLERANCE` or two examples, whichever is larger. Such a model is
        slow: it is asked no further where the two are equal on the first
        `FIRST_EXAMPLES`, which a loss beyond the tolerance passes less often than
        all of `val`. Batches come in a random order, since loaders may be sorted by class.

        Args:
            model: Computes as the runtime does.
            runtime: The file.
            path: Where it is.
            batches: All of `val`, where the model's weights are.
        """
        model.eval()
        scores = [self._score(runtime, batch) for batch in batches]
        expected, got, compared = 0.0, 0.0, 0
        for number in np.random.default_rng(0).permutation(len(batches)):
            file_score, size = scores[number]
            expected, got = expected + self._score(model, batches[number])[0], got + file_score
            first_look = compared < FIRST_EXAMPLES <= compared + size
            compared += size
            if first_look and abs(expected - got) <= 1e-9:
                break
        if abs(expected - got) > _allowed(compared) + 1e-9:
            raise MismatchError(
                explain(
                    f"'{path}'",
                    expected=f"the model's accuracy of {expected / compared:.4f} "
                    f"within {_allowed(compared) / compared:.4f}",
                    got=f"{got / compared:.4f} in the runtime",
                    remedy="calibrate on more data, or report this model",
                )
            )
        return sum(total for total, _ in scores) / sum(size for _, size in scores)

    def _score(self, model: nn.Module, batch: Batch) -> tuple[float, int]:
        with torch.inference_mode():
            return self.task.score(self.task.run(model, batch).float(), batch)


def read_members(study_dir: Path) -> list[MeasuredMember]:
    """Read all complete members of a study, by id."""
    paths = sorted((study_dir / "front").glob("[!.]*/metrics.json"))
    return [MeasuredMember.from_json(read_json(path)) for path in paths]


def timed_with(member: MeasuredMember, original: MeasuredMember) -> MeasuredMember:
    """Scale a latency to the run that the original was last measured in.

    A host has another speed in every run. The scale, what the original took
    in that run over what it took in the member's, is kept as "latency_scale".

    Args:
        member: Measured in some run, together with the original.
        original: The same model's original, as it was measured last.

    Returns:
        The member itself where both are from one run, or nothing was timed.
    """
    before, now = member.measured.get("latency_reference_ms"), original.measured.get("latency_ms")
    if before is None or now is None or before == now:
        return member
    scale, measured = now / before, dict(member.measured)
    measured |= {"latency_ms": scale * measured["latency_ms"], "latency_scale": scale}
    measured["latency_ci95_ms"] = [scale * end for end in measured["latency_ci95_ms"]]
    return replace(member, measured=measured)


def split_front(
    members: Sequence[MeasuredMember],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    baseline: Mapping[str, float],
) -> tuple[list[MeasuredMember], list[MeasuredMember]]:
    """Split members into the front and the others, on measured values.

    Accuracy on `val` decides; `test` is never looked at.

    Args:
        members: Measured members.
        objectives: What spans the front.
        constraints: What its members must meet.
        baseline: Accuracy and costs of the original's artifact.

    Returns:
        The feasible, non-dominated members from the most accurate down, and
        the rest: dominated ones, and infeasible ones nearest to feasible first.
    """
    worst = {member.id: worst_violation(member, constraints, baseline) for member in members}
    feasible = [member for member in members if worst[member.id] <= 0.0]
    infeasible = [member for member in members if worst[member.id] > 0.0]
    front: list[MeasuredMember] = []
    dominated: list[MeasuredMember] = []
    if feasible:
        table = np.array([[o.loss(m.values()) for o in objectives] for m in feasible])
        for member, optimal in zip(feasible, non_dominated_mask(table), strict=True):
            (front if optimal else dominated).append(member)
    front.sort(key=lambda member: (-member.values()["accuracy"], member.id))
    return front, [*dominated, *sorted(infeasible, key=lambda member: worst[member.id])]


def worst_violation(
    member: MeasuredMember, constraints: Sequence[Constraint], baseline: Mapping[str, float]
) -> float:
    """Return the largest violation of a member; at most 0 when it is feasible."""
    values = member.values()
    return max((c.violation(values, baseline) for c in constraints), default=0.0)


def write_front(
    study_dir: Path,
    baseline: Mapping[str, Any],
    front: Sequence[MeasuredMember],
    others: Sequence[MeasuredMember],
) -> None:
    """Write `front.json`; the members that are not on the front follow under "others"."""
    document = front_document(baseline, list(front))
    document["others"] = [member.to_json() for member in others]
    write_json(study_dir / "front.json", document)


def _allowed(examples: int) -> float:
    """Return by how many examples accuracies may differ."""
    return max(ACCURACY_TOLERANCE * examples, 2.0)


def _latency(measurement: LatencyMeasurement, reference: LatencyMeasurement) -> dict[str, Any]:
    return {
        "latency_ms": measurement.median_ms,
        "latency_ci95_ms": list(measurement.ci95_ms),
        "latency_ratio": measurement.ratio,
        "latency_ratio_ci95": list(measurement.ratio_ci95),
        "latency_reference_ms": reference.median_ms,
        "latency_noisy": measurement.noisy,
        "latency_samples_ms": list(measurement.samples[-200:]),
        "device": measurement.device,
        "threads": measurement.threads,
        "batch_size": measurement.batch_size,
    }


def _of_size(tensor: torch.Tensor, batch_size: int) -> np.ndarray[Any, Any]:
    if not tensor.dim():  # one number for all examples
        return tensor.cpu().numpy()
    repeats = -(-batch_size // len(tensor))
    rows = tensor.repeat(repeats, *([1] * (tensor.dim() - 1)))[:batch_size]
    return rows.cpu().contiguous().numpy()
