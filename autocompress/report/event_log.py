"""The log of a study for programs: a line of JSON per event."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from autocompress.core.events import Event


def event_record(event: Event) -> dict[str, Any]:
    """Return an event as a flat JSON object; what does not apply is left out.

    Accuracies of a trial are "accuracy_<fidelity>" and "predicted_accuracy",
    its costs have their names and units, and those measured of a member begin
    with "measured_".
    """
    record: dict[str, Any] = {
        "stage": event.stage,
        "message": event.message,
        "elapsed_s": round(event.elapsed_s, 3),
        "trials_done": event.trials_done,
        "trials_total": event.trials_total,
        "seconds_left": event.seconds_left,
        "progress": event.progress,
    }
    if (trial := event.evaluation) is not None:
        record |= {"slot": trial.slot, "origin": trial.origin, **trial.costs}
        record |= {f"accuracy_{n}": found.accuracy for n, found in trial.fidelities.items()}
        record["predicted_accuracy"] = trial.predicted_accuracy
    if (member := event.member) is not None:
        record["member"] = member.id
        record |= {f"measured_{key}": value for key, value in member.measured.items()}
    return {key: value for key, value in record.items() if value is not None}


class EventLog:
    """Appends a line of JSON per event to a file, with the time of the clock.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        """Append an event."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, **event_record(event)}) + "\n")
