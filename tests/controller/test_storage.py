"""Studies outside of their folder: a journal, and a PostgreSQL server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import make_sampler
from autocompress.controller.storage import Storage, check_url
from autocompress.controller.study_file import STUDY_NAME
from autocompress.core.environment import STORAGE_PASSWORD
from autocompress.core.evaluation import FidelityResult
from autocompress.core.files import read_json
from autocompress.errors import InvalidInputError, StorageError, StudyError
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(2, 32))
SAMPLER = partial(make_sampler, "random", 0)
SEARCH = Path(__file__).parents[1] / "chaos_search.py"
PROXY = FidelityResult(accuracy=0.8, images=100, trained_images=0, seconds=1.5)


def _opened(path: Path, storage: str | None = None) -> Ledger:
    return Ledger.open(
        path,
        metric_names=["accuracy", "latency_ms"],
        identity={"space": SPACE.fingerprint},
        seed=0,
        storage=storage,
    )


def _trial(ledger: Ledger) -> int:
    ticket = ledger.ask(SPACE, SAMPLER)
    ledger.record(ticket, 0, PROXY)
    ledger.complete(ticket, [0.2, 1.0], {"latency_ms": 1.0}, 0.85)
    return ticket.slot


def _two_drivers_in_turn(path: Path, url: str) -> None:
    ledger = _opened(path, url)
    slots = [_trial(ledger), _trial(ledger)]
    interrupted = ledger.ask(SPACE, SAMPLER)
    assert not path.exists()
    ledger.close()
    ledger = _opened(path, url)
    again = ledger.ask(SPACE, SAMPLER)
    assert (again.slot, again.params) == (interrupted.slot, interrupted.params)
    ledger.complete(again, [0.1, 2.0], {}, None)
    slots.append(_trial(ledger))
    assert slots == [0, 1, 3]
    ledger.close()
    reader = Ledger.read(path)
    assert [e.slot for e in reader.evaluations()] == [0, 1, 2, 3]
    reader.close()


def _open_copies(path: Path) -> list[str]:
    return list(optuna.get_all_study_names(f"sqlite:///{path}"))


def test_a_journal_holds_a_study_that_goes_on_and_leaves_a_copy(tmp_path: Path) -> None:
    path, journal = tmp_path / "study" / "study.db", tmp_path / "shared" / "trials.log"
    _two_drivers_in_turn(path, f"journal:{journal}")
    assert journal.stat().st_size > 0
    assert _open_copies(path) == [STUDY_NAME]
    place = Storage.of(path)
    assert place is not None
    assert place.study.startswith("autocompress-study-")


def test_what_a_killed_process_left_half_written_in_a_journal_is_cut_off(tmp_path: Path) -> None:
    path, journal = tmp_path / "study.db", tmp_path / "trials.log"
    ledger = _opened(path, f"journal:{journal}")
    _trial(ledger)
    ledger.close()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "wor')
    ledger = _opened(path)
    assert _trial(ledger) == 1
    ledger.close()
    assert [json for json in journal.read_bytes().splitlines() if not json.endswith(b"}")] == []


def test_the_line_that_another_search_is_writing_to_a_journal_is_left_alone(
    tmp_path: Path,
) -> None:
    url, journal = f"journal:{tmp_path / 'trials.log'}", tmp_path / "trials.log"
    first = _opened(tmp_path / "a" / "study.db", url)
    lines = journal.read_bytes().splitlines(keepends=True)
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:10])
    with ThreadPoolExecutor() as pool:
        second = pool.submit(_opened, tmp_path / "b" / "study.db", url)
        time.sleep(0.3)
        assert not second.done()
        journal.write_bytes(b"".join(lines))
        lock.release()
        second.result(timeout=60).close()
    assert journal.read_bytes().startswith(b"".join(lines))
    _trial(first)
    first.close()


def test_a_study_stays_where_it_is_kept(tmp_path: Path) -> None:
    path, url = tmp_path / "a" / "study.db", f"journal:{tmp_path / 'one.log'}"
    _opened(path, url).close()
    with pytest.raises(StudyError, match=r"one\.log.*leave the storage out"):
        _opened(path, f"journal:{tmp_path / 'two.log'}")
    other = tmp_path / "b" / "study.db"
    _opened(other).close()
    with pytest.raises(StudyError, match="leave the storage out"):
        _opened(other, url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///x.db", "leave it out"),
        ("nonsense", "leave it out"),
        ("journal:", "leave it out"),
        ("postgresql://me:secret@host/db", f"set the environment variable {STORAGE_PASSWORD}"),
    ],
)
def test_addresses_that_will_not_do(url: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    pytest.importorskip("psycopg2", reason="the driver of PostgreSQL is not installed")
    with pytest.raises(StorageError, match=STORAGE_PASSWORD):
        _opened(tmp_path / "study.db", "postgresql://me@127.0.0.1:1/none")
    assert not [entry for entry in tmp_path.iterdir() if not entry.name.endswith(".lock")]


def test_reading_a_journal_leaves_the_line_that_is_being_written(tmp_path: Path) -> None:
    path, journal = tmp_path / "study.db", tmp_path / "trials.log"
    ledger = _opened(path, f"journal:{journal}")
    _trial(ledger)
    half = b'{"op_code": 5, "wor'
    with journal.open("ab") as file:
        file.write(half)
    reader = Ledger.read(path)
    assert len(reader.evaluations()) == 1
    reader.close()
    assert journal.read_bytes().endswith(half)


def test_a_journal_that_is_not_there_is_not_made_and_the_copy_stays(tmp_path: Path) -> None:
    path, journal = tmp_path / "study.db", tmp_path / "shared" / "trials.log"
    ledger = _opened(path, f"journal:{journal}")
    _trial(ledger)
    ledger.close()
    journal.parent.rename(tmp_path / "away")
    with pytest.raises(StorageError, match="there is no file"):
        _opened(path)
    assert not journal.parent.exists()
    reader = Ledger.read(path)
    assert len(reader.evaluations()) == 1
    reader.close()


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path, journal = tmp_path / "study.db", tmp_path / "trials.log"
    _opened(path, f"journal:{journal}").close()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b'{"op_co{"op_code": 1}\n' + b"".join(lines[1:]))
    with pytest.raises(StudyError, match="a whole journal"):
        _opened(path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a PostgreSQL server of our own, with a password."""
    pytest.importorskip("psycopg2", reason="the driver of PostgreSQL is not installed")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("Debian's postgresql is not installed")
    data = tmp_path / "server"
    data.mkdir()
    as_other: list[str] = []
    if os.getuid() == 0:
        as_other = ["runuser", "-u", "postgres", "--"]
        shutil.chown(data, "postgres")
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp/"):
                parent.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("a {strange} p@ss/word%")
    secret.chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def command(name: str, *options: str) -> None:
        subprocess.run(
            [*as_other, str(folders[-1] / name), "-D", str(data / "db"), *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=data,
        )

    command("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    command("pg_ctl", "-w", "-l", str(data / "log"), "-o", options, "start")
    monkeypatch.setenv(STORAGE_PASSWORD, secret.read_text())
    yield f"postgresql://me@127.0.0.1:{port}/postgres"
    command("pg_ctl", "-m", "immediate", "stop")


@pytest.mark.slow
def test_a_server_holds_a_study_and_its_password_is_never_written(
    server: str, tmp_path: Path
) -> None:
    path = tmp_path / "study" / "study.db"
    _two_drivers_in_turn(path, server)
    assert read_json(path.with_name("storage.json"))["url"] == server
    assert _open_copies(path) == [STUDY_NAME]
    for file in path.parent.iterdir():
        assert b"p@ss" not in file.read_bytes()


@pytest.mark.slow
def test_a_mysql_server_holds_a_study_whose_attributes_are_long(tmp_path: Path) -> None:
    url = os.environ.get("TEST_MYSQL_URL")
    if url is None:
        pytest.skip(f"TEST_MYSQL_URL names no MySQL server (its password: {STORAGE_PASSWORD})")
    path = tmp_path / "study" / "study.db"
    _two_drivers_in_turn(path, url)
    ledger = _opened(path)
    ledger.set("ladders", ["x" * 100_000])
    ledger.close()
    reader = Ledger.read(path)
    assert reader.get("ladders") == ["x" * 100_000]
    reader.close()


@pytest.mark.slow
@pytest.mark.ray
def test_drivers_in_turn_with_four_workers_lose_no_trial_on_a_server(
    server: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    folder, log, trials = tmp_path / "study", tmp_path / "log", 24
    command = [sys.executable, str(SEARCH), str(folder), str(trials), "ray"]
    command += ["--workers", "4", "--storage", server]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    first, until = start(), time.monotonic() + 600.0
    told = folder / "log.txt"
    while not (told.is_file() and "trial 10 (" in told.read_text()) and time.monotonic() < until:
        assert first.poll() is None, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (folder / "study.db").exists()
    second = start()
    try:
        assert second.wait(600.0) == 0, log.read_text(errors="replace")[-3000:]
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
    assert "failed" not in told.read_text()
    copy = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{folder / 'study.db'}")
    ended = Counter(
        trial.user_attrs["slot"]
        for trial in copy.trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    )
    assert ended == dict.fromkeys(range(trials), 1)
