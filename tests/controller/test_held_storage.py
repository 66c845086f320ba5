from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autocompress.controller.held_storage import HeldStorage
from autocompress.errors import StudyError

SPACE: dict[str, BaseDistribution] = {
    "bits": IntDistribution(0, 7),
    "ratio": FloatDistribution(0.1, 1.0, log=True),
}


@pytest.fixture(params=["sqlite", "journal"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    if request.param == "journal":
        yield JournalStorage(JournalFileBackend(str(tmp_path / "trials.log")))
        return
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def held(backend: BaseStorage) -> tuple[HeldStorage, int]:
    directions = [optuna.study.StudyDirection.MINIMIZE] * 2
    return HeldStorage(backend), backend.create_new_study(directions, "held")


def begin(storage: HeldStorage, study: int, bits: int = 3) -> int:
    draft = storage.draft(study)
    return storage.begin(study, draft, {"bits": bits, "ratio": 0.5}, SPACE, {"slot": 0})._trial_id


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what databases are told meanwhile."""
    told: list[str] = []

    def hear(_: object, __: object, statement: str, *___: object) -> None:
        told.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", hear)
    try:
        yield told
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", hear)


def test_what_is_seen_is_what_was_written(backend: BaseStorage) -> None:
    storage, study = held(backend)
    one, other = begin(storage, study), begin(storage, study, 5)
    assert storage.get_all_trials(study) == backend.get_all_trials(study)
    storage.set_trial_user_attr(one, "costs", {"size": 3.0, "macs": None})
    storage.set_trial_system_attr(one, "note", (1, 2))
    storage.set_trial_state_values(one, TrialState.COMPLETE, [0.1, 2.0])
    storage.set_trial_state_values(other, TrialState.FAIL)
    storage.set_study_user_attr(study, "seed", 1)
    storage.set_study_system_attr(study, "fit", {"trials": 10})
    assert storage.get_all_trials(study) == backend.get_all_trials(study)
    assert storage.get_trial(one).user_attrs["costs"] == {"size": 3.0, "macs": None}
    assert [t.number for t in storage.get_all_trials(study, states=(TrialState.FAIL,))] == [1]
    assert storage.get_study_user_attrs(study) == {"seed": 1}
    assert storage.get_study_system_attrs(study)["fit"] == {"trials": 10}
    assert HeldStorage(backend).get_all_trials(study) == backend.get_all_trials(study)


def test_a_trial_is_written_whole_in_one_transaction(tmp_path: Path) -> None:
    backend = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    storage, study = held(backend)
    draft = storage.draft(study)
    storage.set_trial_system_attr(draft._trial_id, "generation", 4)
    assert storage.get_trial(draft._trial_id).system_attrs == {"generation": 4}
    assert (draft.number, backend.get_all_trials(study)) == (0, [])
    commits: list[object] = []
    with statements() as told:
        sqlalchemy.event.listen(backend.engine, "commit", commits.append)
        begun = storage.begin(study, draft, {"bits": 3, "ratio": 0.5}, SPACE, {"slot": 7})
    written = [words for words in told if not words.startswith("SELECT")]
    assert len([words for words in written if words.startswith("INSERT")]) == 5
    assert len(commits) == 2  # the trial, and reading it once
    assert begun == backend.get_trial(begun._trial_id)
    assert begun.state == TrialState.RUNNING
    assert (begun.params, begun.user_attrs) == ({"bits": 3, "ratio": 0.5}, {"slot": 7})
    assert begun.system_attrs == {"generation": 4}
    backend.remove_session()
    backend.engine.dispose()


def test_looking_at_running_trials_reads_only_what_was_written_since(tmp_path: Path) -> None:
    backend = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    storage, study = held(backend)
    trials = [begin(storage, study) for _ in range(6)]
    with statements() as told:
        for _ in range(3):
            assert len(storage.get_all_trials(study)) == 6
            assert storage.get_study_system_attrs(study) == {}
    assert all("trials" not in words for words in told)
    storage.set_trial_user_attr(trials[2], "accuracy", 0.5)
    with statements() as told:
        found = storage.get_all_trials(study)
    assert found[2].user_attrs["accuracy"] == 0.5
    assert sum("FROM trial_params" in words for words in told) == 1
    backend.remove_session()
    backend.engine.dispose()


def test_parameters_outside_their_range_are_not_written(backend: BaseStorage) -> None:
    storage, study = held(backend)
    draft = storage.draft(study)
    with pytest.raises(ValueError, match="bits"):
        storage.begin(study, draft, {"bits": 8, "ratio": 0.5}, SPACE, {})
    assert storage.get_all_trials(study) == backend.get_all_trials(study) == []


def test_another_process_that_writes_the_study_is_noticed(backend: BaseStorage) -> None:
    storage, study = held(backend)
    begin(storage, study)
    backend.create_new_trial(study)
    with pytest.raises(StudyError, match="another process writes them too"):
        begin(storage, study)


def test_the_study_that_is_held_stays_the_only_one(backend: BaseStorage) -> None:
    storage, study = held(backend)
    with pytest.raises(StudyError, match="its one study"):
        storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "second")
    with pytest.raises(StudyError, match="its one study"):
        storage.delete_study(study)
    assert [found.study_name for found in storage.get_all_studies()] == ["held"]
