"""What the parts of a model could give, and how long a search takes, as a table and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from autocompress.controller.preflight import Preflight
from autocompress.evaluation.task import warn_of_guessing


def savings_tables(found: Preflight) -> list[Table]:
    """Lay out what each group and block could give.

    Args:
        found: What a check found.

    Returns:
        One table, the largest saving of MACs first; none if nothing varies.
    """
    table = Table(
        title="What each part alone could give, of MACs and of the size with 8-bit weights",
        title_justify="left",
    )
    for header in ("part", "ratio", "MACs", "of all", "bytes", "of all"):
        table.add_column(header, justify="left" if header == "part" else "right", overflow="fold")
    for saving in sorted(found.savings, key=lambda saving: -saving.macs):
        table.add_row(
            f"{saving.kind} {saving.name}",
            "dropped" if saving.kind == "block" else f"{saving.pruning_ratio:.0%}",
            f"{saving.macs:,}",
            f"{saving.macs / found.macs:.1%}" if found.macs else "",
            f"{saving.size_bytes:,}",
            f"{saving.size_bytes / found.size_bytes:.1%}" if found.size_bytes else "",
        )
    return [table] if found.savings else []


def search_time(found: Preflight) -> str:
    """Say in a line how long a search takes, and that it is an estimate."""
    if found.search_seconds is None:
        return "search time: give a task and a budget for an estimate"
    seconds = found.search_seconds
    amount = f"{seconds:.0f} seconds"
    if seconds >= 7200.0:
        amount = f"{seconds / 3600.0:.1f} hours"
    elif seconds >= 120.0:
        amount = f"{seconds / 60.0:.0f} minutes"
    return f"search time: about {amount}, an estimate from one timed forward pass and the budget"


def original_accuracy(found: Preflight) -> str:
    """Say in a line how accurate the original is, before anything is made of it."""
    if found.accuracy is None:
        return "original: give a task to see its accuracy"
    words = (
        f"original: accuracy {100 * found.accuracy:.1f} % on "
        f"{found.accuracy_images} examples spread over val"
    )
    warning = warn_of_guessing(found.accuracy, found.commonest, found.accuracy_images)
    return f"{words}, {warning}" if warning else words


def savings_json(found: Preflight) -> dict[str, Any]:
    """Return the same as plain JSON."""
    return {
        "macs": found.macs,
        "size_bytes_8_bit": found.size_bytes,
        "savings": [asdict(saving) for saving in found.savings],
        "search_seconds_estimate": found.search_seconds,
        "accuracy": found.accuracy,
        "accuracy_images": found.accuracy_images,
        "commonest": found.commonest,
    }
