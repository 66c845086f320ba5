from pathlib import Path

from autocompress.core.events import Event
from autocompress.report.log_file import LogFile


def _event(message: str, seconds: float) -> Event:
    return Event(
        stage="trials",
        message=message,
        elapsed_s=seconds,
        trials_done=0,
        trials_total=None,
        seconds_left=None,
    )


def test_a_line_per_event_after_the_note(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.txt", "No test split was given.")
    log(_event("trial 0", 1.25))
    log(_event("trial 1", 12.5))
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("trials", 1)[1].strip() for line in lines] == [
        "No test split was given.",
        "trial 0",
        "trial 1",
    ]
    assert lines[2].strip().startswith("12.5 s")


def test_a_second_run_appends(tmp_path: Path) -> None:
    for message in ("first", "second"):
        LogFile(tmp_path / "log.txt", "")(_event(message, 0.0))
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2
