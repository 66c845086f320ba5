"""What a study found: the front, picks from it, and every trial as a table."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autocompress.controller.ledger import Ledger
from autocompress.controller.members import worst_violation
from autocompress.controller.storage import study_exists
from autocompress.core.evaluation import MeasuredMember, baselines
from autocompress.core.files import read_json, write_text
from autocompress.core.objective import ACCURACIES, Constraint, known_costs, parse_constraints
from autocompress.core.schema import check_name, check_record
from autocompress.errors import InvalidInputError, MissingFileError, check_type, explain
from autocompress.front_member import FrontMember
from autocompress.kept_config import how_to_continue

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from autocompress.controller.kept_predictor import CandidatePredictor
    from autocompress.report.page import StudyContents
    from autocompress.space.bound import BoundSpace


class SearchResult:
    """The outcome of a study, read from its folder.

    Args:
        study_dir: The study's folder.
        original: The original model, for `FrontMember.model`.
        space: The study's space, for `predictor`.

    Raises:
        MissingFileError: If there is no study in the folder.
        InvalidInputError: If `front.json` is damaged.
    """

    def __init__(
        self,
        study_dir: str | Path,
        original: "nn.Module | None" = None,
        space: "BoundSpace | None" = None,
    ) -> None:
        self.study_dir = Path(study_dir)
        if not study_exists(self.study_dir / "study.db"):
            raise MissingFileError(
                explain(
                    f"'{study_dir}'",
                    expected="a folder with a study.db",
                    got="none there",
                    remedy="check the path, or run a search with this study_dir",
                )
            )
        path = self.study_dir / "front.json"
        document: Mapping[str, Any] = {"baseline": {}, "front": []}
        if path.is_file():
            document = check_record(
                read_json(path),
                what=f"'{path}'",
                keys=("baseline", "front", "others"),
                required=("baseline", "front"),
            )
        self._baseline = baselines(document["baseline"])
        self._front, self._others = (
            [MeasuredMember.from_json(r) for r in check_type(f"'{path}', '{key}'", records, list)]
            for key, records in (
                ("front", document["front"]),
                ("others", document.get("others", [])),
            )
        )
        self._original, self._space = original, space

    @property
    def baseline(self) -> dict[str, dict[str, Any]]:
        """Measured values of the original's artifact ("fp32") and of plain "int8"."""
        return {name: dict(values) for name, values in self._baseline.items()}

    @property
    def constraints(self) -> dict[str, float | str]:
        """The limits of the search, as they were written."""
        return dict(self._settings.get("constraints", {}))

    @property
    def front(self) -> list[FrontMember]:
        """The Pareto-optimal feasible members, most accurate on `val` first."""
        return [self._member(member) for member in self._front]

    @property
    def nearest_infeasible(self) -> list[FrontMember]:
        """The members that miss a constraint of the search, nearest to feasible first."""
        return [self._member(member) for member in self._infeasible]

    @property
    def members(self) -> list[FrontMember]:
        """All that was measured: the front, the dominated, then the infeasible members."""
        every = (*self._front, *self._dominated, *self._infeasible)
        return [self._member(member) for member in every]

    def best(self, /, **limits: float | str) -> FrontMember:
        """Pick a member, under other constraints than those of the search if wanted.

        Args:
            **limits: Constraints as in `search`, for example `latency_ms=0.3`,
                `size_bytes="25%"` or `accuracy=0.88`; none stands for those
                of the search, which the front meets.

        Returns:
            With `accuracy` or `accuracy_drop` given, the cheapest member at or
            above it, in the first cost among the objectives of the search;
            otherwise the one with the highest accuracy on `val` within the
            limits. `test` decides nothing.

        Raises:
            InvalidInputError: If no member is within the limits, when the message
                names the nearest one, or the study did not measure what is limited.
        """
        constraints = parse_constraints(limits)
        measured = {name for m in (*self._front, *self._others) for name in m.values()}
        for name in limits:
            check_name("a limit", name, sorted({*ACCURACIES, *self._reference, *measured}))
        members = [*self._front, *(self._others if limits else ())]
        judged = [(worst_violation(m, constraints, self._reference), m) for m in members]
        within = [member for violation, member in judged if violation <= 0.0]
        if not within:
            nearest = [member for _, member in sorted(judged, key=lambda pair: pair[0])]
            raise self._nobody(constraints or self._limits, nearest or self._infeasible)
        accuracy_first = not {"accuracy", "accuracy_drop"} & set(limits)

        def rank(member: MeasuredMember) -> tuple[float, float, str]:
            accuracy, cost = -member.values()["accuracy"], member.values()[self._first_cost]
            return (accuracy, cost, member.id) if accuracy_first else (cost, accuracy, member.id)

        return self._member(min(within, key=rank))

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

    def plot(
        self, cost: str | None = None, *, backend: Literal["plotly", "matplotlib"] = "plotly"
    ) -> Any:
        """Plot accuracy against a cost: baselines, front and other members as measured.

        Args:
            cost: The cost; None is the first one among the objectives.
            backend: "plotly" also shows the trials as predicted.

        Returns:
            A plotly or a matplotlib `Figure`.

        Raises:
            InvalidInputError: If there is no such cost or backend.
            MissingExtraError: If matplotlib is wanted and not installed.
        """
        from autocompress.report.figures import front_figure
        from autocompress.report.page import artifact_rows
        from autocompress.report.static_plot import matplotlib_figure

        check_name("'backend'", backend, ("plotly", "matplotlib"))
        cost = self._first_cost if cost is None else cost
        check_name("'cost'", cost, known_costs())
        front, others = artifact_rows(self._contents())
        if backend == "matplotlib":
            return matplotlib_figure([*others, *front], cost)
        return front_figure([*others, *front], self.rows(), cost)

    def predictor(self, space: "BoundSpace | None" = None) -> "CandidatePredictor":
        """Return what the study has learned of accuracy, for any candidate of its space.

        Args:
            space: The study's space, bound to its model; not needed where the
                result came from a search in this process.

        Raises:
            InvalidInputError: If no space is known, or it is not the study's.
        """
        from autocompress.controller.kept_predictor import read_predictor

        bound = space if space is not None else self._space
        if bound is None:
            raise InvalidInputError(
                explain(
                    "predictor()",
                    expected="the study's space",
                    got="a study that was opened without one",
                    remedy="call predictor(space), with the space bound to the model",
                )
            )
        return read_predictor(self.study_dir, bound)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """What each fit of the sampler's predictor showed: "trials", "rank_correlations", ..."""
        return [dict(found) for found in self._kept["rounds"]]

    @property
    def outlook(self) -> dict[str, Any]:
        """Hypervolume by trial ("curve"), and what as many more trials would add ("words", ...)."""
        return dict(self._kept["outlook"])

    def report(self) -> Path:
        """Write `report.html`, `report.md` and `trials.csv` into the study's folder.

        Returns:
            The path of the page.
        """
        from autocompress.report.page import render_report, write_markdown

        page, contents = self.study_dir / "report.html", self._contents()
        write_text(page, render_report(contents))
        write_text(self.study_dir / "report.md", write_markdown(contents))
        self.write_trials()
        return page

    def write_trials(self) -> Path:
        """Write `trials.csv` into the study's folder; return its path."""
        path = self.study_dir / "trials.csv"
        write_text(path, self.to_dataframe().to_csv(index=False))
        return path

    def _contents(self) -> "StudyContents":
        """Collect what the report tells."""
        from autocompress.report.page import StudyContents

        environment = self.study_dir / "environment.json"
        return StudyContents(
            baseline=self.baseline,
            front=self._front,
            dominated=self._dominated,
            infeasible=self._infeasible,
            constraints=" and ".join(limit.describe() for limit in self._limits),
            continued_by=how_to_continue(self.study_dir),
            rows=self.rows(),
            environment=read_json(environment) if environment.is_file() else {},
            notes=self._kept["notes"],
            objectives=self._objectives,
            rounds=self._kept["rounds"],
            outlook=self._kept["outlook"],
            study_dir=str(self.study_dir),
            structure=self._kept["structure"],
            sensitivities=self._kept["sensitivities"],
            lessons=self._kept["lessons"],
            finalist_failures=self._kept["finalist_failures"],
            training=self._settings.get("training", {}),
            teachers=len(self._kept["identity"].get("teachers", "").replace(",", " ").split()),
        )

    def _repr_html_(self) -> str:
        """Show the front as a table in a notebook."""
        import pandas as pd

        shown = ("val_accuracy", "accuracy", *(o for o in self._objectives if o != "accuracy"))
        rows = [
            {"id": m.id} | {name: m.measured.get(name) for name in dict.fromkeys(shown)}
            for m in self._front
        ]
        return str(pd.DataFrame(rows).to_html(index=False))

    def __repr__(self) -> str:
        """Name the study and the size of its front."""
        return f"SearchResult('{self.study_dir}', {len(self._front)} front members)"

    @cached_property
    def _kept(self) -> dict[str, Any]:
        """What the ledger keeps beside the trials."""
        ledger = Ledger.read(self.study_dir / "study.db")
        try:
            return {
                "identity": ledger.get("identity", {}),
                "settings": ledger.get("settings", {}),
                "notes": ledger.get("notes", []),
                "rounds": ledger.rounds(),
                "outlook": ledger.get("outlook", {}),
                "structure": ledger.get("structure", {}),
                "sensitivities": ledger.get("sensitivities", []),
                "lessons": ledger.get("lessons", []),
                "finalist_failures": ledger.get("finalist_failures", {}),
            }
        finally:
            ledger.close()

    @property
    def _settings(self) -> dict[str, Any]:
        return dict(self._kept["settings"])

    @property
    def _objectives(self) -> list[str]:
        return list(self._settings.get("objectives", ("accuracy", "latency_ms")))

    @property
    def _first_cost(self) -> str:
        return next(name for name in self._objectives if name != "accuracy")

    @property
    def _limits(self) -> tuple[Constraint, ...]:
        return parse_constraints(self.constraints)

    @property
    def _reference(self) -> dict[str, float]:
        """What relative limits refer to: accuracy on `val` and costs of the original."""
        fp32 = self._baseline.get("fp32", {})
        costs = {k: float(v) for k, v in fp32.items() if isinstance(v, (int, float))}
        return costs | {"accuracy": float(fp32.get("val_accuracy", 0.0))}

    @cached_property
    def _worst(self) -> dict[str, float]:
        """Largest violation of the search's constraints, by member that is not on the front."""
        limits, reference = self._limits, self._reference
        return {m.id: worst_violation(m, limits, reference) for m in self._others}

    @property
    def _dominated(self) -> list[MeasuredMember]:
        return [member for member in self._others if self._worst[member.id] <= 0.0]

    @property
    def _infeasible(self) -> list[MeasuredMember]:
        infeasible = [member for member in self._others if self._worst[member.id] > 0.0]
        return sorted(infeasible, key=lambda member: (self._worst[member.id], member.id))

    def _nobody(
        self, constraints: Sequence[Constraint], nearest: Sequence[MeasuredMember]
    ) -> InvalidInputError:
        limits = " and ".join(constraint.describe() for constraint in constraints)
        near = "no member yet"
        if nearest:
            first = nearest[0]
            values, reference = first.values(), self._reference
            told = dict.fromkeys(c.describe_value(values, reference) for c in constraints)
            known = [words for words in told if words]
            near = f"none within; the nearest is '{first.id}'"
            near += f" with {' and '.join(known)}" if known else ""
        return InvalidInputError(
            explain(
                f"members of '{self.study_dir}'",
                expected=f"one with {limits}" if limits else "one",
                got=near,
                remedy="relax the limits, or search longer",
            )
        )

    def _member(self, member: MeasuredMember) -> FrontMember:
        return FrontMember(
            id=member.id,
            candidate=member.candidate,
            predicted=member.predicted,
            measured=member.measured,
            path=self.study_dir / member.path,
            original=self._original,
        )
