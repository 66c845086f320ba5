"""One artifact of a study, as its reader meets it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError, explain
from autocompress.report.summary import describe

if TYPE_CHECKING:
    from torch import nn

    from autocompress.transform.compressed import CompressedModel


@dataclass(frozen=True, kw_only=True, repr=False)
class FrontMember:
    """One artifact, with what was predicted of it and what was measured on it.

    Attributes:
        id: Name of its folder under `front/`.
        candidate: How it was compressed.
        predicted: Values predicted before the artifact existed.
        measured: Values measured on the artifact: "val_accuracy", "accuracy"
            (test), "latency_ms", "latency_ci95_ms", "size_bytes", ...
        path: The file that runs on the target: model.onnx, model.xml, model.pt2, or
            weights.packed for simulated hardware.
        original: The original model, where the study was opened with one.
    """

    id: str
    candidate: Candidate
    predicted: Mapping[str, float]
    measured: Mapping[str, Any]
    path: Path
    original: "nn.Module | None" = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Name it with its accuracy on `val`, its latency and what was done."""
        return f"FrontMember('{self.id}': {self.words()})"

    def words(self) -> str:
        """Say its accuracy on `val`, its latency and what was done."""
        accuracy, latency = self.measured.get("val_accuracy"), self.measured.get("latency_ms")
        known = [] if accuracy is None else [f"val {100 * accuracy:.2f} %"]
        known += [] if latency is None else [f"{latency:.4g} ms"]
        return ", ".join([*known, describe(self.candidate)])

    @property
    def packed_path(self) -> Path:
        """The bit-packed weights."""
        return self.path.parent / "weights.packed"

    def model(self, original: "nn.Module | None" = None) -> "CompressedModel":
        """Rebuild the compressed torch module.

        Args:
            original: The original architecture; not needed where the result
                came from a search in this process.

        Raises:
            InvalidInputError: If no architecture is known.
        """
        from autocompress.artifact.packed import read_packed

        architecture = original if original is not None else self.original
        if architecture is None:
            raise InvalidInputError(
                explain(
                    "model()",
                    expected="the original architecture",
                    got="a study that was opened without one",
                    remedy="call model(original)",
                )
            )
        return read_packed(self.packed_path, architecture)
