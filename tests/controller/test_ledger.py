import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

import optuna
import pytest

from autocompress.controller import ledger as ledger_module
from autocompress.controller.ledger import MAX_ATTEMPTS, Ledger
from autocompress.controller.sampler import make_sampler
from autocompress.controller.study_file import check_identity
from autocompress.controller.ticket import Ticket
from autocompress.core.evaluation import FidelityResult
from autocompress.errors import InvalidInputError, MissingFileError, StorageError, StudyError
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(2, 32))
METRICS = ["accuracy", "latency_ms"]
IDENTITY = {"model": "toy", "space": SPACE.fingerprint}
SAMPLER = partial(make_sampler, "tpe", 0)
PROXY = FidelityResult(accuracy=0.8, images=100, trained_images=0, seconds=1.5)
SHORT = FidelityResult(accuracy=0.9, images=100, trained_images=500, seconds=8.0)


def opened(path: Path, **changes: str) -> Ledger:
    return Ledger.open(path, metric_names=METRICS, identity=IDENTITY | changes, seed=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder {with} odd?name#" / "study.db"


@pytest.fixture
def ledger(path: Path):
    ledger = opened(path)
    yield ledger
    ledger.close()


def finish(ledger: Ledger, ticket: Ticket) -> None:
    ledger.record(ticket, 0, PROXY)
    ledger.complete(ticket, [0.2, 1.0], {"latency_ms": 1.0}, 0.85)


def test_the_file_holds_one_optuna_study_that_optuna_reads(tmp_path):
    path = tmp_path / "study.db"
    ledger = opened(path)
    finish(ledger, ledger.ask(SPACE, SAMPLER))
    ledger.close()
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    assert optuna.get_all_study_names(storage) == ["autocompress"]
    study = optuna.load_study(study_name="autocompress", storage=storage)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert study.metric_names == METRICS
    assert study.trials[0].values == [0.2, 1.0]
    assert study.trials[0].params.keys() == {parameter.name for parameter in SPACE.parameters}
    assert not study.trials[0].intermediate_values
    assert json.loads(json.dumps(study.trials[0].user_attrs["fidelity:0"])) == PROXY.to_json()
    storage.engine.dispose()


def test_designs_take_slots_in_their_order_and_a_second_time_none(ledger):
    designs = [SPACE.uniform(32, 32, 0.0), SPACE.uniform(8, 8, 0.0), SPACE.uniform(8, 8, 0.5)]
    for _ in range(2):
        for index, design in enumerate(designs):
            ledger.enqueue(SPACE.to_params(design), f"design {index}", {"fidelity": index})
    ledger.enqueue(SPACE.to_params(designs[1]), "the same under another name")
    tickets = []
    for _ in range(4):
        tickets.append(ledger.ask(SPACE, SAMPLER))
        finish(ledger, tickets[-1])
    assert [ticket.candidate for ticket in tickets[:3]] == designs
    assert [ticket.slot for ticket in tickets] == [0, 1, 2, 3]
    assert [t.origin for t in tickets] == ["design 0", "design 1", "design 2", "stratified"]
    assert [ticket.attributes for ticket in tickets[:3]] == [{"fidelity": i} for i in range(3)]
    assert tickets[1].params == SPACE.to_params(designs[1])


def test_evaluations_hold_what_was_recorded(ledger):
    first = ledger.ask(SPACE, SAMPLER)
    ledger.record(first, 0, PROXY)
    ledger.record(first, 1, SHORT)
    ledger.complete(first, [0.1, 0.5], {"latency_ms": 0.5, "macs": 3.0}, 0.91)
    second = ledger.ask(SPACE, SAMPLER)
    ledger.record(second, 0, PROXY)
    ledger.prune(second, "not promising")
    ledger.ask(SPACE, SAMPLER)
    complete, pruned = ledger.evaluations()
    assert (complete.slot, pruned.slot) == (0, 1)
    assert complete.candidate == first.candidate
    assert complete.fidelities == {0: PROXY, 1: SHORT}
    assert complete.costs == {"latency_ms": 0.5, "macs": 3.0}
    assert complete.predicted_accuracy == 0.91
    assert pruned.fidelities == {0: PROXY}
    assert pruned.predicted_accuracy is None
    assert ledger.finished == 2


def test_rows_are_a_table_of_all_slots(ledger):
    finish(ledger, ledger.ask(SPACE, SAMPLER))
    ledger.prune(ledger.ask(SPACE, SAMPLER), "not promising")
    ledger.ask(SPACE, SAMPLER)
    rows = ledger.rows()
    assert [row["slot"] for row in rows] == [0, 1, 2]
    assert [row["state"] for row in rows] == ["complete", "pruned", "running"]
    assert len({tuple(row) for row in rows}) == 1
    assert rows[0]["accuracy_0"] == 0.8
    assert rows[0]["latency_ms"] == 1.0
    assert rows[0]["predicted_accuracy"] == 0.85
    assert rows[0]["seconds"] == 1.5
    assert rows[1]["reason"] == "not promising"
    assert rows[1]["accuracy_0"] is None


def test_a_failed_trial_is_tried_again_in_its_slot_before_anything_else(ledger):
    ledger.enqueue(SPACE.to_params(SPACE.uniform(8, 8, 0.0)), "int8", {"why": "baseline"})
    ledger.enqueue(SPACE.to_params(SPACE.uniform(8, 8, 0.5)), "next")
    first = ledger.ask(SPACE, SAMPLER)
    ledger.record(first, 0, PROXY)
    ledger.fail(first, "diverged")
    assert ledger.finished == 0
    assert ledger.evaluations() == []
    retry = ledger.ask(SPACE, SAMPLER)
    assert (retry.slot, retry.attempt) == (0, 2)
    assert (retry.params, retry.candidate) == (first.params, first.candidate)
    assert (retry.origin, retry.attributes) == ("int8", {"why": "baseline"})
    assert retry.trial != first.trial
    finish(ledger, retry)
    assert ledger.ask(SPACE, SAMPLER).origin == "next"
    assert len(ledger.evaluations()) == 1


def test_a_proposal_that_fails_is_tried_again_too(ledger):
    first = ledger.ask(SPACE, SAMPLER)
    ledger.fail(first, "diverged")
    retry = ledger.ask(SPACE, SAMPLER)
    assert (retry.slot, retry.params, retry.origin) == (0, first.params, first.origin)


def test_a_trial_that_keeps_failing_is_pruned_with_its_reason(ledger):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        ticket = ledger.ask(SPACE, SAMPLER)
        assert (ticket.slot, ticket.attempt) == (0, attempt)
        ledger.fail(ticket, f"diverged {attempt}")
    assert ledger.finished == 1
    (row,) = ledger.rows()
    assert (row["state"], row["reason"]) == ("pruned", f"diverged {MAX_ATTEMPTS}")
    assert ledger.ask(SPACE, SAMPLER).slot == 1


def test_a_trial_that_keeps_killing_its_process_is_pruned(path):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        ledger = opened(path)
        assert ledger.ask(SPACE, SAMPLER).attempt == attempt
        ledger._running.clear()  # as a process that is killed leaves it
        ledger.close()
    ledger = opened(path)
    assert ledger.finished == 1
    assert ledger.rows()[0]["reason"] == "interrupted"
    assert ledger.ask(SPACE, SAMPLER).slot == 1
    ledger.close()


def test_a_trial_is_not_charged_for_a_search_that_is_closed(path):
    for _ in range(MAX_ATTEMPTS + 2):
        ledger = opened(path)
        ticket = ledger.ask(SPACE, SAMPLER)
        assert (ticket.slot, ticket.attempt) == (0, 1)
        ledger.close()
    ledger = opened(path)
    ticket = ledger.ask(SPACE, SAMPLER)
    ledger.fail(ticket, "its own fault")
    assert ledger.ask(SPACE, SAMPLER).attempt == 2
    ledger.close()


def test_ctrl_c_right_after_a_trial_ended_is_told_as_such(path, monkeypatch):
    ledger = opened(path)
    ticket, tell = ledger.ask(SPACE, SAMPLER), ledger._study.tell

    def interrupted(*values, **options):
        tell(*values, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger._study, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finish(ledger, ticket)
    ledger.close()
    ledger = opened(path)
    assert ledger.finished == 1
    ledger.close()


def test_what_an_older_study_does_not_tell_of_its_hardware_is_taken_for_granted(path):
    opened(path).close()
    check_identity(path, expected={"model": "a", "hardware": "x"}, found={"model": "a"})
    with pytest.raises(StudyError, match="hardware"):
        check_identity(path, expected={"hardware": "x"}, found={"hardware": "y"})
    with pytest.raises(StudyError, match="hardware"):
        check_identity(path, expected={}, found={"hardware": "y"})


def test_reap_leaves_the_trials_of_this_process_alone(ledger):
    ticket = ledger.ask(SPACE, SAMPLER)
    assert ledger.reap() == 0
    finish(ledger, ticket)


KILLED = """
import sqlalchemy
from test_ledger import *

ledger = opened(Path(sys.argv[1]))
for origin, ratio in (("a", 0.0), ("b", 0.25), ("c", 0.5)):
    ledger.enqueue(SPACE.to_params(SPACE.uniform(8, 8, ratio)), origin)
finish(ledger, ledger.ask(SPACE, SAMPLER))
ledger.set("elapsed_s", 12.5)
finish(ledger, ledger.ask(SPACE, SAMPLER))
if sys.argv[2] == "design":  # killed while its parameters are written
    written = []

    def die_at_the_third(connection, cursor, statement, *_):
        if statement.startswith("INSERT INTO trial_params"):
            written.append(statement)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", die_at_the_third)
finish(ledger, ledger.ask(SPACE, SAMPLER))
ledger.record(ledger.ask(SPACE, SAMPLER), 0, PROXY)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("moment", "slot"), [("design", 2), ("proposal", 3)])
def test_killing_the_process_loses_only_the_running_trial(path, moment, slot):
    folders = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    killed = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(path), moment],
        env=os.environ | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ledger = opened(path)
    designs = [SPACE.uniform(8, 8, ratio) for ratio in (0.0, 0.25, 0.5)]
    assert ledger.finished == slot
    assert [e.candidate for e in ledger.evaluations()] == designs[:slot]
    assert [e.fidelities for e in ledger.evaluations()] == [{0: PROXY}] * slot
    assert ledger.get("elapsed_s") == 12.5
    retry = ledger.ask(SPACE, SAMPLER)
    assert retry.slot == slot
    assert retry.attempt == (1 if moment == "design" else 2)  # it is written whole or not at all
    if slot < 3:
        assert retry.candidate == designs[slot]
        assert retry.params == SPACE.to_params(designs[slot])
        assert retry.origin == "abc"[slot]
    finish(ledger, retry)
    assert ledger.finished == slot + 1
    assert [row["slot"] for row in ledger.rows()] == list(range(slot + 1))
    ledger.close()


def test_a_study_of_a_version_that_wrote_trials_in_parts_goes_on(tmp_path):
    """It queued designs and retries, and wrote each parameter and attribute by itself."""
    path = tmp_path / "study.db"
    design = SPACE.to_params(SPACE.uniform(8, 8, 0.5))
    ledger = opened(path)
    ledger.enqueue(design, "half")
    first = ledger.ask(SPACE, SAMPLER)
    ledger.fail(first, "diverged")
    begun = dict(ledger._study.trials[0].user_attrs)
    ledger.close()
    study = optuna.load_study(study_name="autocompress", storage=f"sqlite:///{path}")
    study.enqueue_trial(design, {**begun, "attempt": MAX_ATTEMPTS})
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    ledger = opened(path)
    retry = ledger.ask(SPACE, SAMPLER)  # it waited, and was not tried
    assert (retry.slot, retry.attempt, retry.params) == (0, MAX_ATTEMPTS, design)
    assert retry.origin == "half"
    ledger.fail(retry, "diverged again")
    ledger.close()
    study = optuna.load_study(study_name="autocompress", storage=f"sqlite:///{path}")
    study.ask()  # killed before it had a slot
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    ledger = opened(path)
    assert ledger.finished == 1
    assert ledger.ask(SPACE, SAMPLER).slot == 1
    ledger.close()


def test_a_study_that_another_process_runs_is_refused(path):
    script = "import sys; from test_ledger import *; l = opened(Path(sys.argv[1])); "
    script += "print('open', flush=True); sys.stdin.read()"
    folders = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env=os.environ | {"PYTHONPATH": folders},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StudyError, match="another process"):
            opened(path)
        assert Ledger.read(path).finished == 0
        other.communicate("")
    opened(path).close()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_another_identity_is_refused_by_name_and_changes_nothing(path):
    ledger = opened(path)
    ledger.ask(SPACE, SAMPLER)
    ledger.close()
    before = dump(path)
    with pytest.raises(StudyError, match=r"the model it was started with.*other.*another st"):
        opened(path, model="other")
    with pytest.raises(StudyError, match="the objectives it was started with"):
        Ledger.open(path, metric_names=["accuracy", "macs"], identity=IDENTITY, seed=0)
    with pytest.raises(StudyError, match="the seed it was started with"):
        Ledger.open(path, metric_names=METRICS, identity=IDENTITY, seed=1)
    assert dump(path) == before


def test_files_that_are_no_study_are_refused_and_left_alone(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to be looked at\n" * 50)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE studies_of_mine (x)")
    connection.close()
    other = tmp_path / "other.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{other}")
    storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "mine")
    storage.engine.dispose()
    whole = tmp_path / "whole.db"
    opened(whole).close()
    torn = tmp_path / "torn.db"
    torn.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    empty = tmp_path / "empty.db"
    empty.touch()
    for damaged in (text, foreign, other, torn, empty):
        before = damaged.read_bytes()
        for open_it in (opened, Ledger.read):
            with pytest.raises(StudyError, match="expected an intact study") as caught:
                open_it(damaged)
            assert "\n" not in str(caught.value)
        assert damaged.read_bytes() == before


def test_reading_never_creates_or_changes_a_file(path):
    with pytest.raises(MissingFileError, match="nothing there"):
        Ledger.read(path)
    assert not path.parent.exists()
    ledger = opened(path)
    finish(ledger, ledger.ask(SPACE, SAMPLER))
    ledger.ask(SPACE, SAMPLER)
    ledger.close()
    before = path.read_bytes()
    reader = Ledger.read(path)
    assert reader.finished == 1
    assert reader.rows()[1]["state"] == "running"
    assert reader.evaluations()[0].costs == {"latency_ms": 1.0}
    with pytest.raises(StorageError):
        reader.set("key", 1)
    reader.close()
    assert path.read_bytes() == before


def test_a_ledger_that_is_only_read_starts_no_trial(path):
    opened(path).close()
    reader = Ledger.read(path)
    with pytest.raises(StudyError, match="opened for a search, got one that is only read"):
        reader.ask(SPACE, partial(make_sampler, "random", 0))
    assert reader.rows() == []
    reader.close()


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(StorageError, match="choose another folder"):
        opened(blocked / "study.db")


def test_a_study_is_held_before_it_is_created(path, monkeypatch):
    order = []
    for name in ("hold", "create_study"):
        real = getattr(ledger_module, name)
        monkeypatch.setattr(
            ledger_module,
            name,
            lambda *given, name=name, real=real: (order.append(name), real(*given))[1],
        )
    opened(path).close()
    assert order == ["hold", "create_study"]


def test_a_study_begins_with_what_it_is_given(path):
    first = {"settings": {"a": 1}}
    given = {"metric_names": METRICS, "identity": IDENTITY, "seed": 0}
    ledger = Ledger.open(path, **given, first=first)
    assert ledger.get("settings") == {"a": 1}
    ledger.close()
    again = Ledger.open(path, **given, first={"settings": {"a": 2}})
    assert again.get("settings") == {"a": 1}
    again.close()


def test_values_of_the_whole_study_survive(path):
    ledger = opened(path)
    ledger.set("sensitivities", {"conv1": [0.1, 0.2]})
    assert ledger.get("absent") is None
    assert ledger.get("absent", 3) == 3
    for key in ("identity", "seed", "designs"):
        with pytest.raises(InvalidInputError, match="choose another"):
            ledger.set(key, 1)
    ledger.close()
    again = opened(path)
    assert again.get("sensitivities") == {"conv1": [0.1, 0.2]}
    assert again.seed == 0
    again.close()


def test_losses_that_optuna_cannot_hold_are_refused(ledger):
    ticket = ledger.ask(SPACE, SAMPLER)
    for losses in ([0.1], [0.1, float("nan")], [float("inf"), 0.1]):
        with pytest.raises(InvalidInputError, match="2 finite numbers"):
            ledger.complete(ticket, losses, {}, None)
    finish(ledger, ticket)
    with pytest.raises(InvalidInputError, match="end every ticket once"):
        finish(ledger, ticket)


def test_violations_reach_optuna_as_constraints(tmp_path):
    path = tmp_path / "study.db"
    ledger = opened(path)
    ticket = ledger.ask(SPACE, SAMPLER)
    ledger.complete(ticket, [0.1, 0.2], {}, None, {"latency_ms": 0.3, "accuracy_drop": -0.1})
    ledger.close()
    study = optuna.load_study(study_name="autocompress", storage=f"sqlite:///{path}")
    assert study.trials[0].constraints == {"latency_ms": 0.3, "accuracy_drop": -0.1}
    assert study.best_trials == []
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_optuna_stays_quiet_and_as_the_caller_set_it(path, capfd):
    level = logging.getLogger("optuna").level
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ledger = opened(path)
            finish(ledger, ledger.ask(SPACE, SAMPLER))
            ledger.fail(ledger.ask(SPACE, SAMPLER), "planted")
            finish(ledger, ledger.ask(SPACE, SAMPLER))
            ledger.close()
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        logging.getLogger("optuna").setLevel(level)
    assert capfd.readouterr() == ("", "")
