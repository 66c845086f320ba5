"""How a search goes on, shown in a terminal or line by line."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
from rich.console import Console, Group, RenderableType
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

from autocompress.controller.outlook import hypervolume_curve
from autocompress.core.evaluation import Evaluation
from autocompress.core.events import Event
from autocompress.core.pareto import non_dominated_mask

STAGES = ("baseline", "profile", "sensitivity", "trials", "finalists", "measure")
"""What a search goes through, in order."""

WITHIN = {"sharing": "trials", "lessons": "finalists"}
"""Stages that some searches have, and those that they are shown as."""

SHOWN = 4
"""Rows of each kind in the table of the best."""

SPARKS, BARS = 40, "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""Trials that a sparkline shows, and what it is drawn with."""

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
            parts.append(best)
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
            ProgressBar(total=event.trials_total, completed=event.trials_done, width=24),
            _trials(event),
            times,
        )
        parts: list[RenderableType] = [_stages(event.stage), head]
        if curve := self._best.sparkline():
            parts.append(Text(f"hypervolume, as predicted {curve}", no_wrap=True))
        if len(self._best):
            parts.append(self._best.table())
        parts.append(Text(event.message, no_wrap=True, overflow="ellipsis", style="dim"))
        return Group(*parts)


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

    def __len__(self) -> int:
        return len(self._predicted) + len(self._measured)

    def table(self) -> Table:
        """Lay out what no other artifact, and no other trial, is better than."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for header in ("best so far", "accuracy %", "latency ms"):
            table.add_column(header, justify="left" if header == "best so far" else "right")
        for kind, points in (("measured", self._measured), ("predicted", self._predicted)):
            for accuracy, latency in _spread(_non_dominated(points), SHOWN):
                table.add_row(kind, f"{100 * accuracy:.2f}", f"{latency:.4g}")
        return table

    def sparkline(self) -> str:
        """Draw the hypervolume of the trials, as predicted; "" before the second."""
        if len(self._predicted) < 2:
            return ""
        losses = np.array([[1.0 - accuracy, latency] for accuracy, latency in self._predicted])
        reference = losses[0] * [0.0, 1.1] + [losses[0, 0] + 0.2, 0.0]
        curve = hypervolume_curve(losses, reference)[-SPARKS:]
        low, high = curve.min(), curve.max()
        levels = (curve - low) / (high - low) if high > low else np.zeros(len(curve))
        return "".join(BARS[round(float(level) * (len(BARS) - 1))] for level in levels)

    def words(self) -> str:
        """Say accuracy and latency of the best artifact; of the best trial while there is none."""
        for kind, points in (("measured", self._measured), ("predicted", self._predicted)):
            if (point := _fastest(points)) is not None:
                return f"best {100 * point[0]:.1f} % at {point[1]:.3g} ms ({kind})"
        return ""


def _fastest(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Pick the fastest point within `NEAR` of the highest accuracy."""
    floor = max((accuracy for accuracy, _ in points), default=0.0) - NEAR
    near = [point for point in points if point[0] >= floor]
    return min(near, key=lambda point: (point[1], -point[0]), default=None)


def _non_dominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the points that no other is better than, the most accurate first."""
    if not points:
        return []
    losses = np.array([[1.0 - accuracy, latency] for accuracy, latency in points])
    mask = non_dominated_mask(losses)
    kept = {point for point, optimal in zip(points, mask, strict=True) if optimal}
    return sorted(kept, reverse=True)


def _spread(points: Sequence[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Pick so many, evenly, both ends among them."""
    if len(points) <= count:
        return list(points)
    return [points[round(at)] for at in np.linspace(0, len(points) - 1, count)]


def _stages(current: str) -> Text:
    """Name the stages: those that are over dim, the present one bold."""
    line = Text()
    current = WITHIN.get(current, current)
    at = STAGES.index(current) if current in STAGES else len(STAGES)
    for number, stage in enumerate(STAGES):
        line.append(stage, style="bold" if number == at else "dim" if number < at else "")
        if number + 1 < len(STAGES):
            line.append(" > ", style="dim")
    return line


def duration(seconds: float) -> str:
    """Write a duration the way clocks do.

    Example:
        >>> duration(75.4), duration(3601)
        ('1:15', '1:00:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _trials(event: Event) -> str:
    total = "" if event.trials_total is None else f"/{event.trials_total}"
    return f"{event.trials_done}{total} trials"


def _accuracy(evaluation: Evaluation) -> float | None:
    if evaluation.predicted_accuracy is not None or not evaluation.fidelities:
        return evaluation.predicted_accuracy
    return evaluation.fidelities[max(evaluation.fidelities)].accuracy
