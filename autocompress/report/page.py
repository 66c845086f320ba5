"""The HTML page of a study: one file that needs nothing else, not even a network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from autocompress.report.explanations import (
    importance_figure,
    layers_figure,
    sensitivity_figure,
)
from autocompress.report.explorer import as_script, explorer_data
from autocompress.report.figures import (
    SCALED,
    UNIFORM_TRIALS,
    front_figure,
    prediction_figure,
    quantity_words,
)
from autocompress.report.importance import trial_importances
from autocompress.report.markdown import render_markdown
from autocompress.report.progress import correlation_figure, hypervolume_figure
from autocompress.report.summary import (
    ArtifactRow,
    Member,
    baseline_rows,
    measured_words,
    member_rows,
    timing_notes,
)
from autocompress.report.training import lesson_table, training_words

EXPLAINED = 0.2
"""Explained variance of left-out trials from which importances are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyContents:
    """What is known of a study once it has ended, or was stopped.

    Attributes:
        baseline: Measured values by baseline: "fp32", and "int8" if there is one.
        front: The front.
        dominated: Members that meet the constraints, but others are as good in all.
        infeasible: Members that miss a constraint, nearest to feasible first.
        constraints: The constraints in words; "" for none.
        continued_by: The call that continues the study.
        rows: One row per trial: "state", "origin", "reason", "accuracy_0" (by
            fidelity), "predicted_accuracy", costs, "latency_ms_predicted", "seconds".
        environment: Versions, processor and the like, by name.
        notes: What the reader has to know, for example how `val` was split.
        objectives: Names of the objectives.
        rounds: What each fit of the sampler's predictor showed, in order.
        outlook: Hypervolume by trial, and what more would add; {} before the
            trials have ended.
        study_dir: The study's folder, as commands name it.
        structure: Layers and groups of the model, as `check_json` has them;
            {} where the study kept none.
        sensitivities: What each change did alone, as `keep_sensitivities` keeps it.
        lessons: The distillations that were compared, as `lesson_table` reads them.
        finalist_failures: Why a finalist failed, by its id.
        training: How the study trains, as `training_words` reads it.
        teachers: How many teachers there are beside the original.
    """

    baseline: Mapping[str, Mapping[str, Any]]
    front: Sequence[Member]
    dominated: Sequence[Member]
    infeasible: Sequence[Member]
    constraints: str
    continued_by: str
    rows: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]
    notes: Sequence[str]
    objectives: Sequence[str]
    rounds: Sequence[Mapping[str, Any]] = ()
    outlook: Mapping[str, Any] = field(default_factory=dict)
    study_dir: str = "STUDY_DIR"
    structure: Mapping[str, Any] = field(default_factory=dict)
    sensitivities: Sequence[Mapping[str, Any]] = ()
    lessons: Sequence[Mapping[str, Any]] = ()
    finalist_failures: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    teachers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One plot of the page.

    Attributes:
        heading: What it shows.
        html: The plot itself.
    """

    heading: str
    html: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginCount:
    """What became of the trials that one design or sampler proposed.

    Attributes:
        origin: The design or sampler.
        trials: How many trials it proposed.
        states: How many ended in which state.
        highest: How many reached which fidelity at most.
        seconds: Time that their evaluations took.
    """

    origin: str
    trials: int
    states: Mapping[str, int]
    highest: Mapping[int, int]
    seconds: float


def render_report(study: StudyContents) -> str:
    """Render the page.

    Args:
        study: What the page tells.

    Returns:
        A whole HTML document.
    """
    front, others = artifact_rows(study)
    rows, costs = [*others, *front], _costs(study)
    explorer = explorer_data(
        {"front": study.front, "dominated": study.dominated, "infeasible": study.infeasible},
        costs,
        study.structure,
        study.study_dir,
    )
    importances = trial_importances(study.rows, costs)
    explained = [found for found in importances if found.explained >= EXPLAINED]
    layers = None
    if explorer["members"] and explorer["layers"]:
        layers = _plot("Layers", layers_figure(explorer["layers"], explorer["members"][0]))
    fronts = {cost: front_figure(rows, study.rows, cost) for cost in costs}
    drawn = {trace.name for figure in fronts.values() for trace in figure.data}
    templates = Environment(
        loader=PackageLoader("autocompress.report"), autoescape=True, undefined=StrictUndefined
    )
    return templates.get_template("report.html.j2").render(
        study_dir=study.study_dir,
        rows=front,
        others=others,
        measured_words=measured_words([*rows, *others]),
        constraints=study.constraints,
        continued_by=study.continued_by,
        fronts={
            cost: _plot(f"Accuracy against {quantity_words(cost)}", figure)
            for cost, figure in fronts.items()
        },
        has_uniform=UNIFORM_TRIALS in drawn,
        has_scaled=any(name in drawn for name, _ in SCALED.values()),
        layers=layers,
        explorer=explorer,
        explorer_script=as_script(explorer),
        compared=_compared(rows, costs),
        course=_course(study),
        importance=_plot("Importance", importance_figure(explained)) if explained else None,
        unexplained=[
            quantity_words(found.quantity) for found in importances if found not in explained
        ],
        sensitivity=_plot(
            "Sensitivity", sensitivity_figure(study.sensitivities, explorer["layers"])
        )
        if study.sensitivities
        else None,
        lessons=lesson_table(study.lessons),
        origins=_origins(study.rows),
        failures=_failures(study),
        finalist_failures=study.finalist_failures,
        environment=_environment(study),
        notes=_notes(study, rows),
        outlook=study.outlook.get("words", ""),
        plotly_script=get_plotlyjs(),
    )


def write_markdown(study: StudyContents) -> str:
    """Write the tables of the page as Markdown.

    Args:
        study: What the page tells.
    """
    front, others = artifact_rows(study)
    return render_markdown(
        front,
        others,
        _costs(study),
        constraints=study.constraints,
        lessons=lesson_table(study.lessons),
        failures=_failures(study),
        finalist_failures=study.finalist_failures,
        notes=_notes(study, [*front, *others]),
        environment=_environment(study),
    )


def artifact_rows(study: StudyContents) -> tuple[list[ArtifactRow], list[ArtifactRow]]:
    """List baselines and the front, and the members that are not on it."""
    front = [*baseline_rows(study.baseline), *member_rows(study.front, "front", study.baseline)]
    others = [
        *member_rows(study.dominated, "dominated", study.baseline),
        *member_rows(study.infeasible, "infeasible", study.baseline),
    ]
    return front, others


def _notes(study: StudyContents, rows: Sequence[ArtifactRow]) -> list[str]:
    return [*timing_notes(rows), *study.notes]


def _failures(study: StudyContents) -> Mapping[str, int]:
    """Count the trials that failed or were stopped, by the reason."""
    return Counter(str(row["reason"]) for row in study.rows if row.get("reason"))


def _environment(study: StudyContents) -> dict[str, Any]:
    """Add how the study trains, where that is not the default."""
    words = training_words(study.training, study.teachers)
    return {**study.environment, **({"training": words} if words else {})}


def _costs(study: StudyContents) -> list[str]:
    return [name for name in study.objectives if name != "accuracy"]


def _compared(rows: Sequence[ArtifactRow], costs: Sequence[str]) -> list[Plot]:
    """Plot what was predicted against what was measured of it."""
    names = dict.fromkeys(("accuracy", "latency_ms", *costs))
    return [
        _plot(f"Predicted against measured {quantity_words(name)}", prediction_figure(rows, name))
        for name in names
        if any(name in row.predicted for row in rows)
    ]


def _course(study: StudyContents) -> list[Plot]:
    """Plot how the trials went on."""
    plots = []
    if study.outlook:
        plots.append(_plot("Hypervolume against trials", hypervolume_figure(study.outlook)))
    if study.rounds:
        plots.append(_plot("Rank correlation of the predictor", correlation_figure(study.rounds)))
    return plots


def _plot(heading: str, figure: go.Figure) -> Plot:
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=heading.lower().replace(" ", "-"),
        config={"responsive": True, "displayModeBar": False},
    )
    return Plot(heading=heading, html=html)


def _origins(rows: Sequence[Mapping[str, Any]]) -> list[OriginCount]:
    by_origin: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_origin.setdefault(str(row["origin"]), []).append(row)
    return [
        OriginCount(
            origin=origin,
            trials=len(own),
            states=Counter(str(row["state"]) for row in own),
            highest=Counter(level for row in own if (level := _highest(row)) is not None),
            seconds=sum(row.get("seconds") or 0.0 for row in own),
        )
        for origin, own in by_origin.items()
    ]


def _highest(row: Mapping[str, Any]) -> int | None:
    levels = [level for level in range(3) if row.get(f"accuracy_{level}") is not None]
    return max(levels, default=None)
