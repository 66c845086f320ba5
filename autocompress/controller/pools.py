"""The pool of workers that a search was asked to use."""

from collections.abc import Iterator
from contextlib import contextmanager

from autocompress.controller.run import Run
from autocompress.controller.work import InlinePool, Outcome, Work, WorkPool
from autocompress.controller.worker import Placement, evaluate
from autocompress.errors import MissingExtraError, explain


@contextmanager
def open_pool(run: Run) -> Iterator[WorkPool]:
    """Open the pool of a search; what it still does is given up in the end.

    Raises:
        MissingExtraError: If Ray is asked for and not installed.
        SearchFailedError: If there is no cluster.
    """
    executor = run.setup.executor
    if executor.name == "inline":

        def work_here(work: Work) -> Outcome:
            watch = run.watch("trials", f"trial {work.slot}")
            return evaluate(run.evaluator, work, watch)

        yield InlinePool(work_here, executor.seconds_per_trial)
        return
    try:
        from autocompress.controller.ray_pool import RayPool
    except ImportError as error:
        raise MissingExtraError(
            explain(
                "executor 'ray'",
                expected="Ray Tune to be installed",
                got=error,
                remedy="pip install 'ray[tune]'",
            )
        ) from error
    evaluator = run.evaluator
    placed = Placement.of(run.setup, evaluator.shared, evaluator.answers.views)
    pool = RayPool(placed, executor)
    try:
        yield pool
    finally:
        pool.close()
