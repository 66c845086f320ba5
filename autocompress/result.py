"""What a study found: the front, picks from it, and every trial as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.controller.ledger import Ledger
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import MeasuredMember, baselines
from autocompress.core.files import read_json, write_text
from autocompress.core.objective import COSTS, parse_constraints
from autocompress.core.schema import check_record
from autocompress.errors import InvalidInputError, MissingFileError, explain

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from autocompress.transform.compressed import CompressedModel


@dataclass(frozen=True, kw_only=True)
class FrontMember:
    """One artifact, with what was predicted of it and what was measured on it.

    Attributes:
        id: Name of its folder under `front/`.
        candidate: How it was compressed.
        predicted: Values predicted before the artifact existed.
        measured: Values measured on the artifact: "val_accuracy", "accuracy"
            (test), "latency_ms", "latency_ci95_ms", "size_bytes", ...
        path: The ONNX file.
        original: The original model, where the study was opened with one.
    """

    id: str
    candidate: Candidate
    predicted: Mapping[str, float]
    measured: Mapping[str, Any]
    path: Path
    original: "nn.Module | None" = field(default=None, repr=False, compare=False)

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


class SearchResult:
    """The outcome of a study, read from its folder.

    Args:
        study_dir: The study's folder.
        original: The original model, for `FrontMember.model`.

    Raises:
        MissingFileError: If there is no study in the folder.
        InvalidInputError: If `front.json` is damaged.
    """

    def __init__(self, study_dir: str | Path, original: "nn.Module | None" = None) -> None:
        self.study_dir = Path(study_dir)
        if not (self.study_dir / "study.db").is_file():
            raise MissingFileError(
                explain(
                    f"'{study_dir}'",
                    expected="a folder with a study.db",
                    got="none there",
                    remedy="check the path, or run a search with this study_dir",
                )
            )
        path = self.study_dir / "front.json"
        document: Mapping[str, Any] = {"baseline": {}, "front": [], "others": []}
        if path.is_file():
            document = check_record(
                read_json(path),
                what=f"'{path}'",
                keys=("baseline", "front", "others"),
                required=("baseline", "front"),
            )
        self._document = document
        self._front = [MeasuredMember.from_json(record) for record in document["front"]]
        self._others = [MeasuredMember.from_json(r) for r in document.get("others", [])]
        self._original = original

    @property
    def baseline(self) -> dict[str, dict[str, Any]]:
        """Measured values of the original's artifact ("fp32") and of plain "int8"."""
        return baselines(self._document["baseline"])

    @property
    def front(self) -> list[FrontMember]:
        """The Pareto-optimal feasible members, most accurate on `val` first."""
        return [self._member(member) for member in self._front]

    @property
    def nearest_infeasible(self) -> list[FrontMember]:
        """Members that are not on the front; where it is empty, nearest to feasible first."""
        return [self._member(member) for member in self._others]

    def best(self, **limits: float | str) -> FrontMember:
        """Pick a member, under other constraints than those of the search if wanted.

        Args:
            **limits: Constraints as in `search`, for example `latency_ms=0.3`,
                `size_bytes="25%"` or `accuracy=0.88`; none stands for those
                of the search, which the front meets.

        Returns:
            With `accuracy` or `accuracy_drop` given, the cheapest member at or
            above it; otherwise the one with the highest accuracy on `val`
            within the limits. `test` decides nothing.

        Raises:
            InvalidInputError: If no member is within the limits; the message
                names the nearest one.
        """
        constraints = parse_constraints(limits)
        members = [*self._front, *(self._others if limits else ())]
        fp32 = self.baseline.get("fp32", {})
        reference = {k: float(v) for k, v in fp32.items() if isinstance(v, (int, float))}
        reference["accuracy"] = float(fp32.get("val_accuracy", 0.0))
        judged = [
            (max((c.violation(m.values(), reference) for c in constraints), default=0.0), m)
            for m in members
        ]
        within = [member for violation, member in judged if violation <= 0.0]
        if not within:
            nearest = [member.id for _, member in sorted(judged, key=lambda pair: pair[0])]
            nearest += [member.id for member in self._others]
            raise InvalidInputError(
                explain(
                    "best()",
                    expected=" and ".join(c.describe() for c in constraints) or "a front",
                    got=f"no member within; the nearest is '{[*nearest, 'none'][0]}'",
                    remedy="relax the limits, or search longer",
                )
            )
        if {"accuracy", "accuracy_drop"} & set(limits):
            cost = next(name for name in COSTS if all(name in m.values() for m in within))
            return self._member(min(within, key=lambda m: (m.values()[cost], m.id)))
        return self._member(min(within, key=lambda m: (-m.values()["accuracy"], m.id)))

    def to_dataframe(self) -> "pd.DataFrame":
        """Return every trial as a row, those that failed or were stopped included."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Return every trial as a flat dictionary."""
        ledger = Ledger.read(self.study_dir / "study.db")
        try:
            return ledger.rows()
        finally:
            ledger.close()

    def report(self) -> Path:
        """Write `report.html` and `trials.csv` into the study's folder.

        Returns:
            The path of the page.
        """
        from autocompress.report.page import StudyContents, render_report

        ledger = Ledger.read(self.study_dir / "study.db")
        try:
            settings = ledger.get("settings", {})
            notes = ledger.get("notes", [])
        finally:
            ledger.close()
        environment = self.study_dir / "environment.json"
        page = self.study_dir / "report.html"
        contents = StudyContents(
            front=self._document,
            rows=self.rows(),
            environment=read_json(environment) if environment.is_file() else {},
            notes=notes,
            objectives=settings.get("objectives", ["accuracy", "latency_ms"]),
        )
        write_text(page, render_report(contents))
        write_text(self.study_dir / "trials.csv", self.to_dataframe().to_csv(index=False))
        return page

    def __repr__(self) -> str:
        """Name the study and the size of its front."""
        return f"SearchResult('{self.study_dir}', {len(self._front)} front members)"

    def _member(self, member: MeasuredMember) -> FrontMember:
        return FrontMember(
            id=member.id,
            candidate=member.candidate,
            predicted=member.predicted,
            measured=member.measured,
            path=self.study_dir / member.path,
            original=self._original,
        )
