import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from autocompress.controller import study_file
from autocompress.controller.study_file import (
    STUDY_NAME,
    create_study,
    hold,
    open_study,
    release,
    write_ahead,
)
from autocompress.errors import MissingFileError, StorageError, StudyError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study.db"
    create_study(path, ["1 - accuracy", "latency_ms"], {"seed": 3})
    return path


def test_a_created_study_is_whole_and_opens(path: Path) -> None:
    study, storage = open_study(path)
    try:
        assert study.study_name == STUDY_NAME
        assert study.metric_names == ["1 - accuracy", "latency_ms"]
        assert study.user_attrs["seed"] == 3
    finally:
        release(storage)
    assert [entry.name for entry in path.parent.iterdir()] == ["study.db"]


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"study\.db"):
        open_study(tmp_path / "study.db")
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_refused_and_left_as_it_is(path: Path) -> None:
    damaged = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(damaged)
    with pytest.raises(StudyError, match="restore it from a copy"):
        open_study(path)
    assert path.read_bytes() == damaged


def test_a_folder_that_cannot_be_made_cannot_hold_a_study(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        hold(tmp_path / "file" / "study.db")


def test_a_disk_without_locks_is_told_from_another_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, error in (
        (errno.ENOLCK, StorageError),
        (errno.EAGAIN, StudyError),
        (errno.EACCES, StudyError),
    ):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(study_file.fcntl, "lockf", refuse)
        with pytest.raises(error, match=r"another disk|another process"):
            hold(path)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("disk I/O error", StorageError),
        ("database is locked", StorageError),
        ("database or disk is full", StorageError),
        ("attempt to write a readonly database", StorageError),
        ("database disk image is malformed", StudyError),
    ],
)
def test_a_disk_in_the_way_is_told_from_a_damaged_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, words: str, kind: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError(words)

    monkeypatch.setattr(study_file.sqlite3, "connect", fail)
    with pytest.raises(kind, match=words):
        open_study(path)


def test_a_new_study_on_a_full_disk_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("disk is full"))

    monkeypatch.setattr(study_file, "_storage", fail)
    with pytest.raises(StorageError, match="disk is full"):
        create_study(tmp_path / "study.db", ["accuracy"], {})
    assert not list(tmp_path.iterdir())


def test_a_closed_study_needs_no_folder_to_write_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, storage = open_study(path)
    write_ahead(storage)
    assert storage.engine.connect().exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    release(storage, None, path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    opened: list[str] = []
    connect = sqlite3.connect
    access = os.access
    monkeypatch.setattr(
        study_file.os, "access", lambda place, mode: place != path.parent and access(place, mode)
    )
    monkeypatch.setattr(
        study_file.sqlite3,
        "connect",
        lambda place, **k: opened.append(place) or connect(place, **k),
    )
    study, storage = open_study(path, read_only=True)
    assert study.user_attrs["seed"] == 3
    release(storage)
    assert opened[0].endswith("?immutable=1")


def test_the_same_process_may_hold_a_study_twice(path: Path) -> None:
    first, second = hold(path), hold(path)
    _, storage = open_study(path)
    release(storage, first)
    _, storage = open_study(path)
    release(storage, second)


def test_a_study_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    create_study(tmp_path / "study.db", ["accuracy"], {"schema_version": 2})
    with pytest.raises(StudyError, match="use the version of autocompress that wrote it"):
        open_study(tmp_path / "study.db")


@pytest.mark.parametrize(("tables", "words"), [("v3.0.0.a", "storage upgrade"), ("v9", "pip")])
def test_tables_of_another_optuna_are_refused_with_what_to_do(
    path: Path, tables: str, words: str
) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (tables,))
        connection.execute("UPDATE version_info SET library_version = '3.0.0'")
    connection.close()
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(StudyError, match=rf"set up by optuna 3\.0\.0.*{words}") as caught:
            open_study(path, read_only=read_only)
        assert f"tables of Optuna {optuna.__version__}" in str(caught.value)
    assert path.read_bytes() == before
