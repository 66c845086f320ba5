"""What a search shows in a terminal: its progress, and the front at the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autocompress.core.evaluation import Evaluation
from autocompress.core.events import Event
from autocompress.report.summary import ArtifactRow

NEAR = 0.01
"""Accuracy that the "best so far" may lose against the most accurate candidate."""


class ProgressDisplay:
    """A callback that shows where a search stands.

    In a terminal, a few lines are redrawn in place; elsewhere every event is
    one line. Use it as a context manager, so that the terminal is restored.

    Args:
        console: Where to write; standard output by default.
        clock: Seconds that never go back, for the time that passes between events.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console()
        self._clock = clock
        self._event: Event | None = None
        self._received = 0.0
        self._best = BestSoFar()
        self._live: Live | None = None

    def __enter__(self) -> "ProgressDisplay":
        """Begin to redraw, if the output is a terminal."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self._best.update(event)
        self._event = event
        self._received = self._clock()
        if self._live is not None:
            self._live.refresh()
        else:
            self._console.print(self._line(event), soft_wrap=True, markup=False, highlight=False)
            self._console.file.flush()

    def _line(self, event: Event) -> str:
        parts = [f"[{duration(event.elapsed_s)}] {event.stage}: {event.message}"]
        if event.trials_done or event.trials_total is not None:
            parts.append(_trials(event))
        if best := self._best.words():
            parts.append(f"best {best}")
        if event.seconds_left is not None:
            parts.append(f"{duration(event.seconds_left)} left")
        return " | ".join(parts)

    def _panel(self) -> Group:
        event = self._event
        if event is None:
            return Group(Text("starting"))
        since = self._clock() - self._received
        times = f"elapsed {duration(event.elapsed_s + since)}"
        if event.seconds_left is not None:
            times += f", {duration(max(0.0, event.seconds_left - since))} left"
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(event.stage, style="bold"),
            ProgressBar(total=event.trials_total, completed=event.trials_done, width=24),
            _trials(event),
            times,
        )
        lines = [Text(event.message, no_wrap=True, overflow="ellipsis", style="dim")]
        if best := self._best.words():
            lines.insert(0, Text(f"best so far: {best}", no_wrap=True, overflow="ellipsis"))
        return Group(head, *lines)


class ProgressBars:
    """A bar for each thing that is done a known number of times; a context manager.

    Args:
        console: Where to show them.
    """

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._known: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show how many are done, and of how many."""
        if what not in self._known:
            self._known[what] = self._bars.add_task(what)
        self._bars.update(self._known[what], completed=done, total=of)


class BestSoFar:
    """The fastest of those that lose next to nothing against the most accurate.

    Trials are only predicted, artifacts measured; the two are never mixed.
    """

    def __init__(self) -> None:
        self._predicted: list[tuple[float, float]] = []
        self._measured: list[tuple[float, float]] = []

    def update(self, event: Event) -> None:
        """Take a trial or a member into account, if the event has one."""
        if event.evaluation is not None:
            accuracy = _accuracy(event.evaluation)
            latency = event.evaluation.costs.get("latency_ms")
            if accuracy is not None and latency is not None:
                self._predicted.append((accuracy, latency))
        if event.member is not None:
            values = event.member.values()
            if "latency_ms" in values:
                self._measured.append((values["accuracy"], values["latency_ms"]))

    def words(self) -> str:
        """Say accuracy and latency of the best artifact and of the best trial."""
        best = {"measured": _fastest(self._measured), "predicted": _fastest(self._predicted)}
        return ", ".join(
            f"{kind} {100 * point[0]:.2f} % at {point[1]:.3f} ms"
            for kind, point in best.items()
            if point is not None
        )


def _fastest(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Pick the fastest point within `NEAR` of the highest accuracy."""
    floor = max((accuracy for accuracy, _ in points), default=0.0) - NEAR
    near = [point for point in points if point[0] >= floor]
    return min(near, key=lambda point: (point[1], -point[0]), default=None)


def artifact_table(rows: Sequence[ArtifactRow], title: str = "") -> Table:
    """Lay out artifacts, at most 100 columns wide.

    Args:
        rows: Baselines first; a rule sets them apart.
        title: Stands above the table.

    Returns:
        A table; accuracies in percent, predictions beside measurements.
    """
    table = Table(
        title=title or None,
        title_justify="left",
        caption=(
            "pred: predicted before the artifact existed; all else is measured on the artifact. "
            "error: measured minus predicted, in points of accuracy and in percent of the "
            "predicted latency. \N{PLUS-MINUS SIGN} %: half of the 95 % interval. kB: of the "
            "packed weights, and of the ONNX file. Choices saw val only, never test."
        ),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("id", overflow="fold", no_wrap=True)
    for header in (
        *("val %\npred", "val %", "error\npts", "test\n%"),
        *("ms\npred", "ms", "error\n%", "\N{PLUS-MINUS SIGN} %", "x\nfp32"),
        *("kB", "onnx\nkB"),
    ):
        table.add_column(header, justify="right", overflow="fold")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        measured, predicted = row.measured, row.predicted
        table.add_row(
            row.id,
            _number(predicted.get("accuracy"), scale=100, digits=2),
            _number(measured.get("val_accuracy"), scale=100, digits=2),
            _number(row.accuracy_error, scale=100, digits=2, sign="+"),
            _number(measured.get("accuracy"), scale=100, digits=2),
            _latency(predicted.get("latency_ms")),
            _latency(measured.get("latency_ms")),
            _number(row.latency_error, scale=100, digits=1, sign="+"),
            _spread(_half_width(measured)),
            _number(row.latency_ratio, digits=2),
            _size(measured.get("size_bytes")),
            _size(measured.get("onnx_bytes")),
            end_section=row.kind == "baseline"
            and following is not None
            and following.kind != "baseline",
        )
    return table


def duration(seconds: float) -> str:
    """Write a duration the way clocks do.

    Example:
        >>> duration(75.4), duration(3601)
        ('1:15', '1:00:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None, *, scale: float = 1.0, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{scale * value:{sign}.{digits}f}"


def _half_width(measured: Mapping[str, Any]) -> float | None:
    """Return half of the 95 % interval of a latency, as a fraction of the latency."""
    interval, latency = measured.get("latency_ci95_ms"), measured.get("latency_ms")
    return (interval[1] - interval[0]) / 2 / latency if interval and latency else None


def _latency(value: float | None) -> str:
    """Write milliseconds with three digits, one more below 0.1 ms, fewer from 100 ms on."""
    small, large = value is not None and value < 0.1, value is not None and value >= 100.0
    return _number(value, digits=4 if small else 1 if large else 3)


def _spread(value: float | None) -> str:
    """Write percent with one digit, none from 10 % on."""
    return _number(value, scale=100, digits=1 if value is not None and value < 0.0995 else 0)


def _size(value: float | None) -> str:
    """Write kilobytes with one digit, none from 100 kB on."""
    return _number(value, scale=1e-3, digits=1 if value is not None and value < 1e5 else 0)


def _trials(event: Event) -> str:
    total = "" if event.trials_total is None else f"/{event.trials_total}"
    return f"{event.trials_done}{total} trials"


def _accuracy(evaluation: Evaluation) -> float | None:
    if evaluation.predicted_accuracy is not None or not evaluation.fidelities:
        return evaluation.predicted_accuracy
    return evaluation.fidelities[max(evaluation.fidelities)].accuracy
