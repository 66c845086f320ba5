"""Work in this process: its order, its failures, its time limit."""

import time
from pathlib import Path

import pytest

from autocompress.controller.work import InlinePool, Outcome, Work
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.files import write_atomic
from autocompress.errors import StorageError, TrainingError

RESULT = FidelityResult(accuracy=0.5, images=1, trained_images=0, seconds=0.0)


def _work(slot: int) -> Work:
    return Work(slot=slot, candidate=Candidate(), fidelity=0)


def _evaluate(work: Work) -> Outcome:
    if work.slot == 1:
        raise MemoryError("no room")
    if work.slot == 5:
        raise TrainingError("it diverged")
    if work.slot == 2:
        time.sleep(5.0)
    if work.slot == 3:
        raise StorageError("the disk is full")
    return Outcome(slot=work.slot, fidelity=work.fidelity, result=RESULT)


def test_work_is_done_in_order_and_fails_alone() -> None:
    pool = InlinePool(_evaluate)
    for slot in (0, 1, 4, 5):
        pool.submit(_work(slot))
    outcomes = [pool.wait(1.0) for _ in range(4)]
    assert [o and (o.slot, o.failure, o.lasting) for o in outcomes] == [
        (0, "", False),
        (1, "MemoryError: no room", False),
        (4, "", False),
        (5, "TrainingError: it diverged", True),
    ]
    assert pool.wait(1.0) is None


def test_work_that_takes_too_long_fails_and_the_next_does_not() -> None:
    pool = InlinePool(_evaluate, seconds=0.1)
    pool.submit(_work(2))
    late = pool.wait(1.0)
    assert late is not None
    assert late.failure == "TimeoutError: it took longer than 0.1 s"
    pool.submit(_work(0))
    time.sleep(0.15)
    done = pool.wait(1.0)
    assert done is not None
    assert done.result == RESULT


def test_the_end_of_the_time_is_no_error_of_what_it_interrupts(tmp_path: Path) -> None:
    def evaluate(work: Work) -> Outcome:
        write_atomic(tmp_path / "slow", lambda _: time.sleep(5.0))
        raise AssertionError

    pool = InlinePool(evaluate, seconds=0.1)
    pool.submit(_work(0))
    late = pool.wait(1.0)
    assert late is not None
    assert late.failure == "TimeoutError: it took longer than 0.1 s"
    assert not list(tmp_path.iterdir())


def test_a_study_that_cannot_be_written_concerns_all() -> None:
    pool = InlinePool(_evaluate)
    pool.submit(_work(3))
    with pytest.raises(StorageError, match="the disk is full"):
        pool.wait(1.0)
