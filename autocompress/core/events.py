"""What a running search tells whoever listens: progress, trials and members."""

from dataclasses import dataclass
from typing import Protocol

from autocompress.core.evaluation import Evaluation, MeasuredMember


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One step of a search.

    Attributes:
        stage: "baseline", "profile", "sharing", "sensitivity", "trials", "lessons", "finalists",
            "measure" or "done"; some searches skip some.
        message: What happened, one line.
        elapsed_s: Seconds since the study began, earlier runs included.
        trials_done: Trials complete or pruned so far.
        trials_total: Trials asked for; None without a limit.
        seconds_left: Time left in the budget; None without a limit.
        evaluation: The trial that ended, if one did and has values.
        failure: Why the trial that ended failed; "" if none did.
        member: The artifact that was written, if one was.
        progress: Share of a training that is done, [0, 1]; None between steps.
    """

    stage: str
    message: str
    elapsed_s: float
    trials_done: int = 0
    trials_total: int | None = None
    seconds_left: float | None = None
    evaluation: Evaluation | None = None
    failure: str = ""
    member: MeasuredMember | None = None
    progress: float | None = None


class Stop(BaseException):
    """Raised by a callback, it ends the search; the study can be continued.

    It is no `Exception`, so that what guards the trials lets it pass. Raised
    on an event whose `progress` is None, it loses nothing but the time to
    choose the next step; in the middle of a training, that training.
    """


class Callback(Protocol):
    """Anything that can be called with an `Event`; raising `Stop` ends the search."""

    def __call__(self, event: Event, /) -> None:
        """Receive one event."""
