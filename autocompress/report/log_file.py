"""The log of a study, one line per event."""

from pathlib import Path

from autocompress.core.events import Event


class LogFile:
    """Appends one line per event to a file.

    Args:
        path: The file.
        note: A line that comes first; "" for none.
    """

    def __init__(self, path: Path, note: str) -> None:
        self._path, self._note = path, note

    def __call__(self, event: Event) -> None:
        """Append an event."""
        lines = [self._note] if self._note else []
        lines.append(event.message)
        self._note = ""
        with self._path.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{event.elapsed_s:9.1f} s  {event.stage:<11} {line}\n")
