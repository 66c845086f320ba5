"""A search that is killed at random moments ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import optuna
import pytest

from autocompress.controller.ledger import Ledger
from autocompress.core.files import read_json, write_json

SCRIPT = Path(__file__).parents[1] / "chaos_search.py"

TRIALS = int(os.environ.get("CHAOS_TRIALS", "60"))
"""Trials of the search."""

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "30"))
"""Times that a search is killed."""

POINTS = {"commit": 400, "write": 25, "export": 45}
"""Events at which a search may be killed, and how many of each it is let through at most."""

PATIENCE = 600.0
"""Seconds in which an undisturbed run must end."""


def _start(
    folder: Path,
    executor: str,
    log: Path,
    trials: int = TRIALS,
    prefix: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [*prefix, sys.executable, str(SCRIPT), str(folder), str(trials), executor, *options],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the driver and all that it has started, as a host that loses power does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill_a_worker(process: subprocess.Popen[bytes], rng: random.Random) -> bool:
    """Kill a process that does trials, if there is one yet; tell whether there was."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            session, command = os.getsid(int(entry.name)), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if session == process.pid and command.startswith(b"ray::") and b"Trainable" in command:
            found.append(int(entry.name))
    if found:
        os.kill(rng.choice(sorted(found)), signal.SIGKILL)
    return bool(found)


def _finish(folder: Path, executor: str, log: Path, trials: int = TRIALS) -> None:
    process = _start(folder, executor, log, trials)
    try:
        assert process.wait(PATIENCE) == 0, log.read_text(errors="replace")[-3000:]
    finally:
        if process.poll() is None:
            _kill_group(process)


def _candidates(folder: Path) -> list[str]:
    ledger = Ledger.read(folder / "study.db")
    try:
        return [evaluation.candidate.to_json() for evaluation in ledger.evaluations()]
    finally:
        ledger.close()


def _check(folder: Path, trials: int = TRIALS) -> None:
    """Every slot has ended exactly once, and nothing half-written is left."""
    study = optuna.load_study(study_name="autocompress", storage=f"sqlite:///{folder / 'study.db'}")
    ended = Counter(
        trial.user_attrs["slot"]
        for trial in study.trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    )
    assert ended == dict.fromkeys(range(trials), 1)
    assert not [trial for trial in study.trials if trial.state.name == "RUNNING"]
    front = read_json(folder / "front.json")
    assert front["front"] or front["others"]
    for member in front["front"]:
        assert (folder / member["path"]).is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_search_that_is_killed_at_random_ends_as_if_it_was_not(
    executor: str, tmp_path: Path
) -> None:
    rng, log = random.Random(ROUNDS), tmp_path / "log"
    calm = tmp_path / "calm"
    began = time.monotonic()
    _finish(calm, executor, log)
    seconds = time.monotonic() - began
    _check(calm)
    folder, studies, hits = tmp_path / "study0", 1, Counter[str]()
    while (kills := hits.total() - hits["worker"]) < ROUNDS:
        kind = ("moment", *POINTS)[kills % (1 + len(POINTS))]
        point = ("--die", f"{kind} {rng.randint(1, POINTS[kind])}") if kind in POINTS else ()
        process = _start(folder, executor, log, options=point)
        if executor == "ray" and rng.random() < 0.3:  # a worker dies, the search goes on
            time.sleep(rng.uniform(0.3, 0.8) * seconds)
            hits["worker"] += _kill_a_worker(process, rng)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE if point else rng.uniform(0.1, 0.6) * seconds)
        ended = process.poll()
        _kill_group(process)
        if ended in (None, -signal.SIGKILL):
            hits[kind] += 1
            write_json(tmp_path / "kills.json", {**hits, "studies": studies, "calm_s": seconds})
            continue
        assert ended == 0, log.read_text(errors="replace")[-3000:]
        _check(folder)
        folder, studies = tmp_path / f"study{studies}", studies + 1
    _finish(folder, executor, log)
    for study in range(studies):
        _check(tmp_path / f"study{study}")
        if executor == "inline":
            assert _candidates(tmp_path / f"study{study}") == _candidates(calm)
            fronts = [
                read_json(f / "front.json")["front"] for f in (calm, tmp_path / f"study{study}")
            ]
            assert [m["candidate"] for m in fronts[0]] == [m["candidate"] for m in fronts[1]]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_search_outlives_one_of_its_two_nodes(tmp_path: Path) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    folder, log, trials = tmp_path / "study", tmp_path / "log", 24
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        # Another address is another host: drivers join the node that has theirs.
        node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
        cluster.wait_for_nodes()
        process = _start(folder, "ray", log, trials, options=("--address", cluster.address))
        try:
            half = f"trial {trials // 2} ("
            until = time.monotonic() + PATIENCE
            while half not in _read(folder / "log.txt") and time.monotonic() < until:
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                time.sleep(0.1)
            cluster.remove_node(node, allow_graceful=False)
            assert process.wait(PATIENCE) == 0, log.read_text(errors="replace")[-3000:]
        finally:
            _kill_group(process)
    finally:
        cluster.shutdown()
    _check(folder, trials)


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


@pytest.mark.slow
def test_a_full_disk_stops_with_a_message_and_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    folder, log, trials = tmp_path / "study", tmp_path / "log", 12
    # No file may grow beyond 400 KiB, which fails writing as a full disk does.
    process = _start(folder, "inline", log, trials, ("prlimit", "--fsize=409600", "--"))
    assert process.wait(PATIENCE) == 1
    told = log.read_text(errors="replace")
    assert "StorageError" in told.splitlines()[-1]
    assert "free some space" in told
    assert (folder / "study.db").is_file()
    _finish(folder, "inline", log, trials)
    _check(folder, trials)
