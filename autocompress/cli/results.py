"""What a study found, shown in a shell."""

from typing import TYPE_CHECKING, Any

import typer

from autocompress.cli.app import (
    INFEASIBLE,
    make_console,
    print_json,
    say,
)
from autocompress.errors import StorageError

if TYPE_CHECKING:
    from autocompress.api import SearchResult


def show(result: "SearchResult", *, as_json: bool = False, feasible_only: bool = True) -> None:
    """Show what a study found, or how far it came, and where the page is.

    Args:
        result: The result.
        as_json: Write JSON, not tables.
        feasible_only: Exit with `INFEASIBLE` where members are there, but none is feasible.
    """
    page: str | None = None
    try:
        page = str(result.report())
    except StorageError as error:  # what is known can be shown all the same
        typer.echo(f"no report: {error}", err=True)
    if as_json:
        print_json(result_json(result) | {"report": page})
    else:
        _show_tables(result)
        if page is not None:
            say(make_console(), f"report: {page}")
    if feasible_only and result.members and not result.front:
        from autocompress.core.objective import parse_constraints

        limits = " and ".join(limit.describe() for limit in parse_constraints(result.constraints))
        place = "on disk" if as_json else "shown above and on disk"
        typer.echo(
            f"no candidate meets the constraints: {limits}; the nearest ones are {place}", err=True
        )
        raise typer.Exit(INFEASIBLE)


def result_json(result: "SearchResult") -> dict[str, Any]:
    """Return what a study found as JSON.

    Returns:
        "study_dir", "constraints", "baseline" by name, and "front",
        "dominated" and "infeasible", lists of members with "id", "done",
        "predicted", "measured" and "path".
    """
    from autocompress.report.summary import describe

    members = result.members
    front = [member.id for member in result.front]
    infeasible = [member.id for member in result.nearest_infeasible]

    def standing(name: str) -> str:
        return "front" if name in front else "infeasible" if name in infeasible else "dominated"

    found: dict[str, Any] = {
        "study_dir": str(result.study_dir),
        "constraints": dict(result.constraints),
        "baseline": {name: _short(values) for name, values in result.baseline.items()},
        **{name: [] for name in ("front", "dominated", "infeasible")},
    }
    for member in members:
        found[standing(member.id)].append(
            {
                "id": member.id,
                "done": describe(member.candidate),
                "predicted": dict(member.predicted),
                "measured": _short(member.measured),
                "path": str(member.path),
            }
        )
    return found


def _short(measured: Any) -> dict[str, Any]:
    """Leave out raw samples."""
    return {key: value for key, value in measured.items() if key != "latency_samples_ms"}


def _show_tables(result: "SearchResult") -> None:
    from autocompress.report.console import artifact_table
    from autocompress.report.summary import baseline_rows, member_rows, timing_notes

    console = make_console()
    baseline, infeasible = result.baseline, result.nearest_infeasible
    if result.front:
        rows = [*baseline_rows(baseline), *member_rows(result.front, "front", baseline)]
        console.print(artifact_table(rows))
    elif result.members:
        rows = [*baseline_rows(baseline), *member_rows(infeasible, "infeasible", baseline)]
        console.print(artifact_table(rows, "No front; the infeasible members, nearest first"))
    else:
        say(console, _unfinished(result))
    if result.members:
        for note in timing_notes(rows):
            console.print(note, markup=False, highlight=False)
        say(console, f"files: {result.study_dir / 'front'}/<id>/{result.members[0].path.name}")


def _unfinished(result: "SearchResult") -> str:
    from autocompress.kept_config import how_to_continue

    trials = len(result.rows())
    return (
        f"no members yet: the study was stopped after {trials} trials, before its first artifact "
        f"was measured; to continue: {how_to_continue(result.study_dir)}"
    )
