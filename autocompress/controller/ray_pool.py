"""Workers of a Ray cluster, started and replaced by Ray Tune.

One trial of Tune is one worker, which does piece after piece of work: our
searcher suggests as many as are wanted, and another for each that dies.
Candidates, results and weights go through a desk, an actor beside the search.
Tune never sees them: it would remember all of them, and take a worker that
still starts for one that is free.
"""

import asyncio
import faulthandler
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autocompress.controller.ray_cluster import connect, room_for
from autocompress.controller.work import Evaluate, Outcome, Work, attempt, failed
from autocompress.core.executor import Executor
from autocompress.errors import InvalidInputError, SearchFailedError, explain

AHEAD, AHEAD_SHARE = 4, 0.25
"""Pieces of work that wait at most for the next free worker: so many, or that share of the workers
where it is more, since many of them may be done while one proposal is made."""

CLOSING_SECONDS = 10.0
"""Time that workers have to stop."""

IDLE_SECONDS = 1.0
"""Time that a worker waits for work before it shows Tune that it lives."""

BARREN = 3
"""Workers in a row, as a multiple of those wanted, that may die before they take work."""


class RayPool:
    """Does work on the workers of a Ray cluster.

    A worker that dies fails its piece of work and is replaced.
    """

    is_remote: bool = True

    def __init__(self, prepare: Callable[[], Evaluate], executor: Executor) -> None:
        """Connect to a cluster and start its workers.

        Args:
            prepare: Called once by each worker; returns what does the work.
            executor: How many workers, and what each has.

        Raises:
            InvalidInputError: If model or task cannot be sent to workers, or a worker needs more
                than this host has.
            SearchFailedError: If there is no cluster.
        """
        placed = _packed(prepare)
        self._started = connect(executor)
        self.workers = executor.workers or room_for(executor)
        ahead = max(AHEAD, int(AHEAD_SHARE * self.workers))
        self.capacity = self.workers + min(self.workers, ahead)
        # Not soft: Ray would move the desk to another node while this one is busy, to die with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here)
        self._desk: Any = desk.remote(executor.seconds_per_trial)
        self._searcher = _Workers(self._desk, self.workers)
        self._ended = ""
        self._thread = threading.Thread(target=self._run, args=(placed, executor), daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Take a piece of work; fine-tunes go before proxies."""
        with _desk_errors():
            ray.get(self._desk.put.remote(work.fidelity > 0, cloudpickle.dumps(work)))

    def wait(self, seconds: float) -> Outcome | None:
        """Return an outcome, or None if there is none after some time.

        Raises:
            SearchFailedError: If Ray Tune has ended, or no worker starts.
        """
        with _desk_errors():
            done = ray.get(self._desk.collect.remote(seconds))
        if done is not None:
            self._searcher.barren = 0
            outcome: Outcome = cloudpickle.loads(done)
            return outcome
        if self._searcher.barren > BARREN * self.workers:
            raise _stopped("that workers die before they take any work")
        if not self._thread.is_alive():
            raise _stopped(self._ended)
        return None

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started for them."""
        self._searcher.stopping.set()
        self._thread.join(CLOSING_SECONDS)
        if self._started:
            ray.shutdown()

    def _run(self, placed: bytes, executor: Executor) -> None:
        """Run Tune until the pool is closed; in a thread of its own."""
        folder = tempfile.mkdtemp(prefix="autocompress-tune-")
        trainable = tune.with_resources(
            tune.with_parameters(
                _Worker, placed=placed, desk=self._desk, seconds=executor.seconds_per_trial
            ),
            {"cpu": executor.cpus, "gpu": executor.gpus},
        )
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.workers)
        try:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(search_alg=self._searcher, num_samples=-1),
                run_config=tune.RunConfig(
                    storage_path=folder,
                    name="workers",
                    verbose=0,
                    stop=_Stop(self._searcher.stopping),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
            self._ended = "that it has ended"
        except Exception as error:  # whoever waits for an outcome is told
            self._ended = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Desk:
    """An actor beside the search, where workers fetch work and leave outcomes, as bytes."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._work: list[tuple[bool, bytes]] = []
        self._done: asyncio.Queue[bytes] = asyncio.Queue()
        self._held: dict[str, tuple[bytes, float]] = {}
        self._buried: set[str] = set()
        self._more = asyncio.Condition()

    async def put(self, urgent: bool, work: bytes) -> None:
        before = sum(first for first, _ in self._work) if urgent else len(self._work)
        self._work.insert(before, (urgent, work))
        async with self._more:
            self._more.notify()

    async def fetch(self, worker: str, seconds: float) -> bytes | None:
        if not self._work:
            async with self._more:
                try:
                    await asyncio.wait_for(self._more.wait(), seconds)
                except asyncio.TimeoutError:
                    return None
        if worker in self._buried:  # it died while it waited; the work is another's
            async with self._more:
                self._more.notify()
            return None
        if not self._work:
            return None
        _, work = self._work.pop(0)
        self._held[worker] = (work, time.monotonic())
        return work

    async def leave(self, worker: str, outcome: bytes) -> None:
        if self._held.pop(worker, None) is not None:  # a buried worker's work has failed already
            await self._done.put(outcome)

    async def bury(self, worker: str) -> bool:
        """Fail the work that a dead worker held; tell whether there was any."""
        self._buried.add(worker)
        held = self._held.pop(worker, None)
        if held is None:
            return False
        work, began = held
        late = self._seconds is not None and time.monotonic() - began >= self._seconds
        reason = f"it took longer than {self._seconds:g} s" if late else "its worker died"
        await self._done.put(cloudpickle.dumps(failed(cloudpickle.loads(work), reason)))
        return True

    async def collect(self, seconds: float) -> bytes | None:
        try:
            return await asyncio.wait_for(self._done.get(), seconds)
        except asyncio.TimeoutError:
            return None


class _Workers(Searcher):
    """Suggests a trial of Tune per worker, and another for each that died."""

    def __init__(self, desk: Any, workers: int) -> None:
        super().__init__(metric="done", mode="max")
        self.stopping = threading.Event()
        self.barren = 0
        self._desk, self._workers = desk, workers
        self._alive: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy to restore from; we restore from the study

    def suggest(self, trial_id: str) -> Any:
        if self.stopping.is_set():
            return Searcher.FINISHED
        if len(self._alive) >= self._workers:
            return None
        self._alive.add(trial_id)
        return {"worker": trial_id}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._alive.discard(trial_id)
        if not self.stopping.is_set():
            self.barren = 0 if ray.get(self._desk.bury.remote(trial_id)) else self.barren + 1

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study holds all."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _Stop(tune.Stopper):
    """Ends Tune's run when the search closes the pool."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping: threading.Event | None = stopping

    def __getstate__(self) -> dict[str, Any]:
        return {"_stopping": None}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopping is not None and self._stopping.is_set()


class _Worker(tune.Trainable):
    """Does one piece of work per step, for as long as the search lasts."""

    def setup(
        self,
        config: dict[str, Any],
        placed: bytes = b"",
        desk: Any = None,
        seconds: float | None = None,
    ) -> None:
        self._name, self._placed, self._desk = config["worker"], placed, desk
        self._seconds = seconds
        self._evaluate: Evaluate | None = None

    def step(self) -> dict[str, Any]:
        given = ray.get(self._desk.fetch.remote(self._name, IDLE_SECONDS))
        if given is not None:
            outcome = attempt(self._limited, cloudpickle.loads(given))
            ray.get(self._desk.leave.remote(self._name, cloudpickle.dumps(outcome)))
        return {"done": False}

    def _limited(self, work: Work) -> Outcome:
        """Do the work, or end this process when it takes too long, whatever it hangs in."""
        if self._evaluate is None:
            self._evaluate = cloudpickle.loads(self._placed)()
        if self._seconds is None:
            return self._evaluate(work)
        with Path(os.devnull).open("w") as nowhere:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=nowhere)
            try:
                return self._evaluate(work)
            finally:
                faulthandler.cancel_dump_traceback_later()


def _stopped(got: str) -> SearchFailedError:
    return SearchFailedError(
        explain(
            "executor 'ray'",
            expected="Ray Tune to do the work",
            got=got,
            remedy="see Ray's logs, then run the same command again",
        )
    )


@contextmanager
def _desk_errors() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        raise _stopped(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def _packed(prepare: Callable[[], Evaluate]) -> bytes:
    """Pickle what workers need, with the user's own modules, which workers may not have."""
    try:
        with _own_modules():
            return bytes(cloudpickle.dumps(prepare))
    except Exception as error:  # anything may go wrong in a user's objects
        raise InvalidInputError(
            explain(
                "executor 'ray'",
                expected="a model and a task that can be sent to workers",
                got=f"{type(error).__name__}: {error}",
                remedy="keep open files, locks and generators out of them, or run 'inline'",
            )
        ) from error


@contextmanager
def _own_modules() -> Iterator[None]:
    """Pickle the modules that are neither installed nor ours by value."""
    paths = sysconfig.get_paths()
    installed = [Path(paths[key]).resolve() for key in ("stdlib", "purelib", "platlib")]
    installed.append(Path(__file__).resolve().parents[1])
    own = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or name == "__main__":
            continue
        path = Path(file).resolve()
        if not any(path.is_relative_to(folder) for folder in installed):
            own.append(module)
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
