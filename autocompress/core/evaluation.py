"""What is known of a candidate: accuracies by fidelity, costs, and front members."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from autocompress.core.candidate import Candidate
from autocompress.core.schema import SCHEMA_VERSION, check_record
from autocompress.errors import InvalidInputError, check_type, explain


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityResult:
    """What one evaluation at one fidelity found.

    Attributes:
        accuracy: Fraction of `val` that is right, [0, 1].
        images: Validation images that the accuracy was taken on.
        trained_images: Training images that the weights have seen since the
            cut, re-used checkpoints included; 0 for the proxy.
        seconds: Wall time of the evaluation.
    """

    accuracy: float
    images: int
    trained_images: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "accuracy": self.accuracy,
            "images": self.images,
            "trained_images": self.trained_images,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "FidelityResult":
        """Read a result from what `to_json` returned."""
        keys = ("accuracy", "images", "trained_images", "seconds")
        return cls(**check_record(record, what="fidelity result", keys=keys, required=keys))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that the ledger holds about one evaluated candidate.

    Attributes:
        slot: The trial slot, which seeds the trial's randomness.
        candidate: The candidate, canonical.
        origin: Which design or sampler proposed it.
        fidelities: Result per fidelity reached (0 proxy, 1 short, 2 full).
        costs: Predicted or analytic costs by name, units as in `COSTS`.
        predicted_accuracy: Predicted accuracy after full fine-tuning, [0, 1].
        failed: Whether it was given up in training, so that its proxy alone says little.
    """

    slot: int
    candidate: Candidate
    origin: str
    fidelities: Mapping[int, FidelityResult] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    predicted_accuracy: float | None = None
    failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredMember:
    """A finalist that is on disk, with predictions and measurements apart.

    Attributes:
        id: Name of the member's folder under `front/`.
        candidate: The candidate, canonical.
        predicted: Predicted values by name, for example "accuracy".
        measured: Measured on the artifact: "val_accuracy", "accuracy"
            (test), "latency_ms", "latency_ci95_ms", "size_bytes", ...
        path: The artifact, relative to the study folder.
    """

    id: str
    candidate: Candidate
    predicted: Mapping[str, float]
    measured: Mapping[str, Any]
    path: str

    def values(self) -> dict[str, float]:
        """Return what decides: accuracy on `val`, and the measured costs."""
        costs = {k: float(v) for k, v in self.measured.items() if isinstance(v, (int, float))}
        return costs | {"accuracy": float(self.measured["val_accuracy"])}

    def to_json(self) -> dict[str, Any]:
        """Return the member as an entry of `front.json`."""
        return {
            "id": self.id,
            "candidate": json.loads(self.candidate.to_json()),
            "predicted": dict(self.predicted),
            "measured": dict(self.measured),
            "path": self.path,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "MeasuredMember":
        """Read a member from an entry of `front.json`.

        Raises:
            InvalidInputError: If it is none, or its path leaves the study's folder.
            WrongTypeError: Likewise.
        """
        keys = ("id", "candidate", "predicted", "measured", "path")
        fields = dict(check_record(record, what="front member", keys=keys, required=keys))
        fields["candidate"] = Candidate.from_json(json.dumps(fields["candidate"]))
        for key in ("id", "path"):
            parts = PurePath(check_type(f"front member '{key}'", fields[key], str)).parts
            if not parts or ".." in parts or parts[0].startswith("/") or "\0" in fields[key]:
                raise _wrong(key, "a name inside the study's folder", fields[key])
        for key in ("predicted", "measured"):
            check_type(f"front member '{key}'", fields[key], dict)
        accuracy = fields["measured"].get("val_accuracy")
        if not isinstance(accuracy, (int, float)):
            raise _wrong("val_accuracy", "a number", accuracy)
        return cls(**fields)


def _wrong(key: str, expected: str, got: object) -> InvalidInputError:
    what, remedy = f"front member '{key}'", "restore the file"
    return InvalidInputError(explain(what, expected=expected, got=repr(got), remedy=remedy))


def front_document(baseline: Mapping[str, Any], members: list[MeasuredMember]) -> dict[str, Any]:
    """Compose the content of `front.json`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "baseline": dict(baseline),
        "front": [member.to_json() for member in members],
    }


def baselines(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the "baseline" of a front document.

    Args:
        record: Values measured on the original's artifact, and under "int8"
            those of its plain int8 quantisation.

    Returns:
        Measured values by baseline: "fp32", then "int8" if it is there.
    """
    check_type("'baseline'", record, dict)
    int8 = check_type("'baseline', key 'int8'", record.get("int8") or {}, dict)
    fp32 = {key: value for key, value in record.items() if key != "int8"}
    found = {"fp32": fp32, "int8": dict(int8)}
    return {name: dict(values) for name, values in found.items() if values}
