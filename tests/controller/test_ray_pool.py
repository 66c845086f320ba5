"""Ray workers: failures stay alone, dead and hanging workers are replaced, a search ends."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from autocompress.controller.work import Outcome, Work
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.executor import Executor
from autocompress.errors import InvalidInputError, SearchFailedError

ray = pytest.importorskip("ray", reason="Ray is not installed")
ray_pool = pytest.importorskip("autocompress.controller.ray_pool", reason="Ray is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")


def _prepare(seconds: float) -> Callable[[Work], Outcome]:
    def evaluate(work: Work) -> Outcome:
        if work.slot == 1:
            raise ValueError("wrong")
        if work.slot == 2:
            os._exit(3)
        time.sleep(60.0 if work.slot == 3 else seconds)
        result = FidelityResult(accuracy=0.5, images=1, trained_images=0, seconds=seconds)
        return Outcome(slot=work.slot, fidelity=work.fidelity, result=result, weights=b"w")

    return evaluate


@pytest.mark.ray
def test_what_fails_fails_alone() -> None:
    pool = ray_pool.RayPool(
        partial(_prepare, 0.05), Executor(name="ray", workers=2, seconds_per_trial=3.0)
    )
    try:
        for slot in range(8):
            pool.submit(Work(slot=slot, candidate=Candidate(), fidelity=0))
        outcomes: dict[int, Outcome] = {}
        until = time.monotonic() + 120.0
        while len(outcomes) < 8 and time.monotonic() < until:
            outcome = pool.wait(1.0)
            if outcome is not None:
                outcomes[outcome.slot] = outcome
    finally:
        pool.close()
    assert {slot: outcome.failure for slot, outcome in sorted(outcomes.items())} == {
        0: "",
        1: "ValueError: wrong",
        2: "its worker died",
        3: "it took longer than 3 s",
        **dict.fromkeys(range(4, 8), ""),
    }
    assert outcomes[7].weights == b"w"


def _describe() -> Callable[[Work], Outcome]:
    def evaluate(work: Work) -> Outcome:
        time.sleep(2.0 if work.slot == 0 else 0.05)
        has = ray.get_runtime_context().get_assigned_resources()
        result = FidelityResult(accuracy=has["GPU"], images=1, trained_images=0, seconds=0.0)
        shown = f"{os.environ['OMP_NUM_THREADS']} threads, process {os.getpid()}"
        return Outcome(
            slot=work.slot, fidelity=work.fidelity, result=result, weights=shown.encode()
        )

    return evaluate


@pytest.mark.ray
def test_workers_share_a_gpu_have_their_threads_and_wait_for_nobody() -> None:
    ray.init(num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        pool = ray_pool.RayPool(_describe, Executor(name="ray", workers=2, cpus=2, gpus=0.5))
        try:
            until, outcomes = time.monotonic() + 120.0, []

            def collect(works: list[Work]) -> None:
                for work in works:
                    pool.submit(work)
                wanted = len(outcomes) + len(works)
                while len(outcomes) < wanted and time.monotonic() < until:
                    outcomes.extend([found] if (found := pool.wait(1.0)) else [])

            while len({o.weights for o in outcomes}) < 2 and time.monotonic() < until:
                collect([Work(slot=9, candidate=Candidate(), fidelity=0)] * 2)
            given = ((0, 0), (1, 0), (2, 0), (3, 1))
            collect([Work(slot=s, candidate=Candidate(), fidelity=f) for s, f in given])
        finally:
            pool.close()
    finally:
        ray.shutdown()
    assert {o.failure for o in outcomes} == {""}
    assert {o.result.accuracy for o in outcomes if o.result} == {0.5}
    assert {o.weights.split(b",")[0] for o in outcomes} == {b"2 threads"}
    assert len({o.weights for o in outcomes}) == 2
    assert outcomes[-1].slot == 0  # the slow one is waited for by nobody


def test_what_cannot_be_sent_is_refused_before_anything_starts() -> None:
    lock = threading.Lock()
    with pytest.raises(InvalidInputError, match="a task that can be sent to workers"):
        ray_pool.RayPool(lambda: lock, Executor(name="ray"))


@pytest.mark.ray
def test_an_address_without_a_cluster_is_refused() -> None:
    with pytest.raises(SearchFailedError, match="ray start --head"):
        ray_pool.RayPool(
            partial(_prepare, 0.1), Executor(name="ray", address="127.0.0.1:1", workers=1)
        )


@pytest.mark.slow
@pytest.mark.ray
def test_a_node_that_goes_takes_no_trial_with_it() -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        executor = Executor(name="ray", address=cluster.address, workers=2)
        pool = ray_pool.RayPool(partial(_prepare, 0.5), executor)
        try:
            slots = set(range(10, 26))
            for slot in sorted(slots):
                pool.submit(Work(slot=slot, candidate=Candidate(), fidelity=0))
            failures, until = [], time.monotonic() + 300.0
            while slots and time.monotonic() < until:
                outcome = pool.wait(1.0)
                if outcome is None:
                    continue
                if outcome.failure:  # as the ledger does
                    failures.append(outcome.failure)
                    pool.submit(Work(slot=outcome.slot, candidate=Candidate(), fidelity=0))
                else:
                    slots.remove(outcome.slot)
                if len(slots) == 12 and node is not None:
                    cluster.remove_node(node, allow_graceful=False)
                    node = None
        finally:
            pool.close()
    finally:
        cluster.shutdown()
    assert node is None
    assert not slots
    assert set(failures) <= {"its worker died"}


def test_a_worker_that_died_while_it_waited_takes_no_work() -> None:
    async def tell() -> tuple[bool, list[bytes | None]]:
        desk = ray_pool._Desk(None)
        waiting = [asyncio.create_task(desk.fetch(name, 5.0)) for name in ("dead", "alive")]
        await asyncio.sleep(0)
        held = await desk.bury("dead")
        await desk.put(False, b"work")
        return held, [await one for one in waiting]

    assert asyncio.run(tell()) == (False, [None, b"work"])


def test_work_that_a_dead_worker_held_has_one_outcome() -> None:
    async def tell() -> tuple[bytes | None, bytes | None]:
        desk = ray_pool._Desk(None)
        await desk.put(
            False, ray.cloudpickle.dumps(Work(slot=7, candidate=Candidate(), fidelity=0))
        )
        assert await desk.fetch("slow", 1.0) is not None
        assert await desk.bury("slow")
        await desk.leave("slow", b"a late outcome")
        return await desk.collect(1.0), await desk.collect(0.05)

    first, second = asyncio.run(tell())
    assert ray.cloudpickle.loads(first).failure == "its worker died"
    assert second is None
