import sqlite3
from pathlib import Path

import optuna
import pytest

from autocompress.controller.study_file import (
    STUDY_NAME,
    create_study,
    hold,
    open_study,
    release,
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


def test_a_folder_that_is_not_there_cannot_hold_a_study(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        hold(tmp_path / "none" / "study.db")


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
