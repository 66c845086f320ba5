"""The report as Markdown, for a pull request or a note."""

from collections.abc import Mapping, Sequence
from typing import Any

from autocompress.report.figures import cost_axis
from autocompress.report.summary import ArtifactRow, measured_words


def render_markdown(
    front: Sequence[ArtifactRow],
    others: Sequence[ArtifactRow],
    costs: Sequence[str],
    *,
    constraints: str,
    lessons: Sequence[Sequence[str]],
    failures: Mapping[str, int],
    finalist_failures: Mapping[str, str],
    notes: Sequence[str],
    environment: Mapping[str, Any],
) -> str:
    """Write the tables of a report as Markdown.

    Args:
        front: Baselines and the front.
        others: Members that are not on it.
        costs: The costs to show; latency, predicted and measured, is always among them.
        constraints: The constraints in words; "" for none.
        lessons: Heads and rows of the distillations that were compared; empty for none.
        failures: How many trials failed or were stopped, by the reason.
        finalist_failures: Why a finalist failed, by its id.
        notes: What the reader has to know.
        environment: Versions, processor and the like, by name.

    Returns:
        A Markdown document.
    """
    lines = [
        "# autocompress report",
        "",
        "Predicted values were computed before the artifact existed; "
        f"{measured_words([*front, *others])}. Choices saw `val` only, never `test`.",
        "",
        *_artifacts(front, costs),
    ]
    if constraints:
        lines += ["", f"Constraints: {constraints}."]
    if others:
        lines += ["", "## Not on the front", "", *_artifacts(others, costs)]
    if lessons:
        lines += [
            *("", "## Distillation", ""),
            "Accuracy is that of a model after a short fine-tune, before any export.",
            *("", *_table(lessons[0], lessons[1:])),
        ]
    if failures or finalist_failures:
        lines += ["", "## Failures"]
    if failures:
        rows = [[count, reason] for reason, count in failures.items()]
        lines += ["", *_table(["trials", "reason"], rows)]
    if finalist_failures:
        lines += ["", *_table(["finalist", "reason"], sorted(finalist_failures.items()))]
    if notes:
        lines += ["", "## Notes", "", *(f"* {_cell(note)}" for note in notes)]
    lines += ["", "## Environment", "", *_table(["", ""], list(environment.items()))]
    return "\n".join(lines) + "\n"


def _artifacts(rows: Sequence[ArtifactRow], costs: Sequence[str]) -> list[str]:
    shown = list(dict.fromkeys(("latency_ms", *costs)))
    heads = ["id", "standing", "val % predicted", "val %", "95 % interval", "test %"]
    for cost in shown:
        title = cost_axis(cost)[0]
        heads += [f"{title} predicted", title]
    heads += ["x original", "what was done"]
    table = []
    for row in rows:
        interval = row.accuracy_interval
        cells = [
            row.id,
            row.kind,
            _number(row.predicted.get("accuracy"), 100.0, ".2f"),
            _number(row.measured.get("val_accuracy"), 100.0, ".2f"),
            " to ".join(f"{100 * end:.2f}" for end in interval) if interval else "",
            _number(row.measured.get("accuracy"), 100.0, ".2f"),
        ]
        for cost in shown:
            scale = cost_axis(cost)[1]
            cells += [_cost(row.predicted.get(cost), scale), _cost(row.measured.get(cost), scale)]
        cells += [_number(row.latency_ratio, 1.0, ".2f"), row.done]
        table.append(cells)
    return _table(heads, table)


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
    ]


def _number(value: float | None, scale: float, digits: str) -> str:
    return "" if value is None else f"{scale * value:{digits}}"


def _cost(value: float | None, scale: float) -> str:
    """Write four digits, or all before the point."""
    large = value is not None and abs(scale * value) >= 1000
    return _number(value, scale, ".0f" if large else ".4g")


def _cell(text: object) -> str:
    """Keep a text inside its cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
