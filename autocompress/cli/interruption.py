"""Ctrl-C during a search: the first stops after the running trial, the second at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from autocompress.core.events import Event

SLOW_STAGES = ("sharing", "trials", "lessons", "finalists")
"""Stages in which a step is worth waiting for; all others continue where they were anyway."""


class Interruption:
    """A callback that stops a search once Ctrl-C was pressed; a context manager.

    A terminal sends Ctrl-C to all processes of a command. Those that were
    forked, such as the workers of data loaders, leave it to this one.

    Attributes:
        stopped: Whether it has stopped the search.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._wanted = False
        self._stage = ""
        self._done = 0
        self._before: Any = None
        self._process = os.getpid()

    def __enter__(self) -> "Interruption":
        """Take Ctrl-C over."""
        self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)

    def __call__(self, event: "Event") -> None:
        """Stop the search between two trials, if that is wanted."""
        from autocompress.core.events import Stop

        self._stage = event.stage
        ended = event.evaluation or event.failure or event.trials_done > self._done
        self._done = event.trials_done
        between = event.stage != "trials" or ended
        if self._wanted and event.progress is None and between:
            self.stopped = True
            raise Stop

    def _receive(self, _: int, __: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self._wanted or self._stage not in SLOW_STAGES:
            raise KeyboardInterrupt
        self._wanted = True
        typer.echo("stopping after the running trial; press Ctrl-C again to stop at once", err=True)
