"""What an executor does: evaluate a candidate at a fidelity, anywhere, in any order."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.errors import StorageError, StudyError, TrainingError


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One evaluation, with all that a worker needs to know besides the search's setup.

    Attributes:
        slot: The trial slot, which seeds it.
        candidate: What to evaluate.
        fidelity: 0 for the proxy, 1 for a short fine-tune.
        images: Training images to see.
        seconds: Wall time for the training; None for no limit.
        weights: A checkpoint to train on from, where the worker cannot read
            those of the study; b"" for none.
    """

    slot: int
    candidate: Candidate
    fidelity: int
    images: int = 0
    seconds: float | None = None
    weights: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a piece of work.

    Attributes:
        slot: Its trial slot.
        fidelity: Its fidelity.
        result: What was found; None where it failed.
        weights: The checkpoint that was trained, where the worker cannot
            write to the study.
        seconds_per_image: As of the evaluator that trained; 0 where there was no training.
        failure: Why there is no result; "" where there is.
        lasting: Whether another attempt would fail alike.
    """

    slot: int
    fidelity: int
    result: FidelityResult | None = None
    weights: bytes = b""
    seconds_per_image: float = 0.0
    failure: str = ""
    lasting: bool = False


Evaluate = Callable[[Work], Outcome]
"""Does a piece of work; depends on nothing else but what it was prepared with."""


class WorkPool(Protocol):
    """Does work for the search, which alone decides what is done.

    Attributes:
        workers: How many pieces of work are done at once.
        capacity: Trials that the search should have begun, so that no worker waits.
        is_remote: Whether workers read and write files of the study through the search only,
            and keep this host busy while it measures.
    """

    workers: int
    capacity: int
    is_remote: bool

    def submit(self, work: Work) -> None:
        """Take a piece of work; fine-tunes go before proxies."""

    def wait(self, seconds: float) -> Outcome | None:
        """Return an outcome, or None if there is none after some time.

        Raises:
            SearchFailedError: If there will be no further outcome.
        """


def attempt(evaluate: Evaluate, work: Work) -> Outcome:
    """Do a piece of work; whatever it raises is its failure, and of it alone.

    Raises:
        StorageError: If the study cannot be written, which concerns all.
        StudyError: If the study is damaged.
    """
    try:
        return evaluate(work)
    except (StorageError, StudyError):
        raise
    except Exception as error:
        diverged = isinstance(error, TrainingError)
        return failed(work, f"{type(error).__name__}: {error}", lasting=diverged)


def failed(work: Work, reason: str, *, lasting: bool = False) -> Outcome:
    """Return the outcome of work that failed."""
    return Outcome(slot=work.slot, fidelity=work.fidelity, failure=reason, lasting=lasting)


class InlinePool:
    """Does each piece of work in this process, when its outcome is asked for.

    Args:
        evaluate: Does a piece of work.
        seconds: Time after which it fails; None for no limit. It needs the
            main thread and a system with alarms, and ends what runs in Python.
    """

    workers: int = 1
    capacity: int = 1
    is_remote: bool = False

    def __init__(self, evaluate: Evaluate, seconds: float | None = None) -> None:
        self._evaluate, self._seconds = evaluate, seconds
        self._queue: list[Work] = []

    def submit(self, work: Work) -> None:
        """Take a piece of work."""
        self._queue.append(work)

    def wait(self, seconds: float) -> Outcome | None:
        """Do the work that was taken first, however long it takes."""
        if not self._queue:
            return None
        work = self._queue.pop(0)
        try:
            with _alarm(self._seconds):
                return attempt(self._evaluate, work)
        except _TimeIsUpError as error:
            return failed(work, f"TimeoutError: {error}")


class _TimeIsUpError(BaseException):
    """Ends what runs; no `Exception`, which what is interrupted might take for its own."""


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `_TimeIsUpError` in the body after some seconds, where the system can."""
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise _TimeIsUpError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
