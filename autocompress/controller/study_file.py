"""The file of a study: created whole, checked when opened, held by one process."""

import errno
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from autocompress.controller.held_storage import HeldStorage
from autocompress.controller.storage import Storage, open_tables
from autocompress.core.files import write_atomic
from autocompress.core.schema import SCHEMA_VERSION
from autocompress.errors import (
    AutocompressError,
    MissingFileError,
    StorageError,
    StudyError,
    explain,
)

try:
    import fcntl
except ImportError:  # Windows: a second process is not kept out there.
    fcntl = None  # type: ignore[assignment]

STUDY_NAME = "autocompress"
"""Name of the one study in the file."""

SYSTEM = ("disk I/O error", "is full", "unable to open database file", "readonly", "is locked")
"""What SQLite says where the system is in its way, and not the file's content."""


def create_study(
    path: Path,
    metric_names: Sequence[str],
    attributes: Mapping[str, Any],
    url: str | None = None,
) -> None:
    """Create a study; it appears whole or not at all.

    Args:
        path: Its file, which must not exist.
        metric_names: Names of the objectives; all are minimised.
        attributes: Study attributes that exist from the start.
        url: Where to keep it instead of in the file; see `Storage`.

    Raises:
        InvalidInputError: If it cannot be kept there.
        StorageError: If it cannot be written.
    """

    def fill(storage: BaseStorage, name: str) -> None:
        try:
            with _quiet():
                study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    directions=["minimize"] * len(metric_names),
                    sampler=optuna.samplers.RandomSampler(seed=0),
                )
                study.set_metric_names(list(metric_names))
            for key, value in {"schema_version": SCHEMA_VERSION, **attributes}.items():
                study.set_user_attr(key, value)
        finally:
            release(storage)

    if url is None:
        with writing(path):
            write_atomic(path, lambda temporary: fill(_storage(temporary), STUDY_NAME))
        return
    place = Storage.new(url, path.parent.absolute())
    with writing(path):
        fill(place.connect(create=True), place.study)
    place.keep(path)


def keep_copy(path: Path, study: optuna.Study) -> None:
    """Write the file of a study that is kept elsewhere, for whoever cannot reach that.

    Raises:
        StorageError: If it cannot be written.
    """

    def write(temporary: Path) -> None:
        storage = _storage(temporary)
        try:
            with _quiet():
                optuna.copy_study(
                    from_study_name=study.study_name,
                    from_storage=study._storage,
                    to_storage=storage,
                    to_study_name=STUDY_NAME,
                )
        finally:
            release(storage)

    with writing(path):
        write_atomic(path, write)


def open_study(path: Path, *, read_only: bool = False) -> tuple[optuna.Study, BaseStorage]:
    """Open a study.

    One that is kept elsewhere is opened there, or, to be read where a search
    has left a copy, from the copy.

    Args:
        path: Its file.
        read_only: Whether writing through the study is refused.

    Returns:
        The study, and its storage, to close in the end.

    Raises:
        MissingFileError: If there is no such file.
        StudyError: If it is damaged, or no study of ours.
        StorageError: If it is kept elsewhere, and that cannot be reached.
    """
    place = Storage.of(path)
    if place is not None and not (read_only and path.is_file()):
        return _open_elsewhere(path, place, read_only)
    if not path.is_file():
        raise MissingFileError(
            explain(
                f"study '{path}'",
                expected="a file",
                got="nothing there",
                remedy="check the study_dir, or start a search in it",
            )
        )
    _check_intact(path)
    try:
        storage = _storage(path, read_only=read_only)
        study = optuna.load_study(
            study_name=STUDY_NAME,
            storage=storage if read_only else HeldStorage(storage),
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
    except KeyError as error:
        raise StudyError(_damaged(path, f"no study '{STUDY_NAME}' in it")) from error
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise _unreadable(path, error.__cause__ or error) from error
    _check_version(path, study)
    return study, storage


def _open_elsewhere(
    path: Path, place: Storage, read_only: bool
) -> tuple[optuna.Study, BaseStorage]:
    storage = place.connect(read_only=read_only)
    try:
        study = optuna.load_study(
            study_name=place.study,
            storage=HeldStorage(storage),
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
    except KeyError as error:
        release(storage)
        raise StudyError(_damaged(path, f"no study '{place.study}' at '{place.url}'")) from error
    _check_version(path, study)
    return study, storage


def _check_version(path: Path, study: optuna.Study) -> None:
    version = study.user_attrs.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise StudyError(
            explain(
                f"study '{path}', 'schema_version'",
                expected=SCHEMA_VERSION,
                got=version,
                remedy="use the version of autocompress that wrote it, or another study_dir",
            )
        )


def release(storage: BaseStorage, lock: int | None = None, path: Path | None = None) -> None:
    """Close all connections of a storage, settle its file, and let go of the lock of `hold`."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()
    if path is not None:
        _settle(path)
    let_go(lock)


def let_go(lock: int | None) -> None:
    """Let go of the lock of `hold`."""
    if lock is not None:
        os.close(lock)


def _settle(path: Path) -> None:
    """Merge the log beside a closed study into its file, unless it is read or the disk full."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(path, timeout=0.2)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = DELETE")


def hold(path: Path) -> int | None:
    """Keep other processes from running the study until it is released.

    The operating system lets go when the process ends, however it ends. The
    same process may hold a study more than once.

    Args:
        path: The file of the study; a hidden sibling is locked. Its folder is created.

    Returns:
        A file descriptor; None where the platform has no such lock.

    Raises:
        StudyError: If another process runs the study.
        StorageError: If the folder cannot be written, or its disk has no locks.
    """
    if fcntl is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return None
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(_cannot_write(path, error)) from error
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise StorageError(
                explain(
                    f"study '{path}'",
                    expected="a disk whose files can be locked",
                    got=error.strerror,
                    remedy="use a study_dir on another disk",
                )
            ) from error
        raise StudyError(
            explain(
                f"study '{path}'",
                expected="to be its only user",
                got="another process that runs it",
                remedy="wait for the other search, or use another study_dir",
            )
        ) from error
    return handle


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a study that cannot be written, say on a full disk, as ours.

    Raises:
        StorageError: If the body fails to write.
    """
    try:
        yield
    except (
        optuna.exceptions.StorageInternalError,
        sqlalchemy.exc.SQLAlchemyError,
        OSError,
    ) as error:
        if isinstance(error, AutocompressError):
            raise
        raise StorageError(_cannot_write(path, error.__cause__ or error)) from error


def check_identity(path: Path, *, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse to continue a study with something else than it was started with.

    Raises:
        StudyError: With the names and values that differ.
    """
    told = {"hardware": expected.get("hardware", "")}  # which older studies do not keep
    expected, found = {**told, **expected}, {**told, **found}
    differing = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if differing:
        raise StudyError(
            explain(
                f"study '{path}'",
                expected="the " + ", ".join(f"{key} it was started with" for key in differing),
                got=", ".join(f"{key} '{expected.get(key)}'" for key in differing)
                + " instead of "
                + ", ".join(f"'{found.get(key)}'" for key in differing),
                remedy="use another study_dir, or what this study was started with",
            )
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's news of a created study from the user's terminal."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            # Metric names are experimental in Optuna 5; its dashboards show them.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)


def _storage(path: Path, *, read_only: bool = False) -> RDBStorage:
    key, value = _mode(path).split("=")
    database = f"file:{quote(str(path.resolve()))}"
    url = sqlalchemy.URL.create("sqlite", database=database, query={key: value, "uri": "true"})
    storage = open_tables(
        url, what=f"study '{path}'", connect_args={"timeout": 60}, read_only=read_only
    )
    if read_only:

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def forbid_writing(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("PRAGMA query_only = ON")

        release(storage)
    return storage


def write_ahead(storage: BaseStorage) -> None:
    """Commit fast, since a trial commits each parameter, into a log beside the file.

    A study that is kept elsewhere has no such file.

    The study stays whole whatever happens; only a host that loses power loses
    the last commits. The log is gone when the study is closed.
    """
    if not (isinstance(storage, RDBStorage) and storage.engine.dialect.name == "sqlite"):
        return

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    release(storage)


def _check_intact(path: Path) -> None:
    """Refuse a file that is no study before anything is written to it."""
    uri = f"file:{quote(str(path.resolve()))}?{_mode(path)}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    if problem != "ok":
        raise StudyError(_damaged(path, problem))
    if not {"studies", "trials", "alembic_version"} <= tables:
        raise StudyError(_damaged(path, "other content"))


def _mode(path: Path) -> str:
    """Return how a file is opened: as one that never changes, where nothing may be beside it.

    "rw" never creates a file, and lets SQLite recover what a killed process left half-written,
    which "ro" refuses.
    """
    beside = path.with_name(f"{path.name}-wal")
    fixed = not os.access(path.parent, os.W_OK) and not beside.exists()
    return "immutable=1" if fixed else "mode=rw"


def _unreadable(path: Path, error: BaseException) -> AutocompressError:
    """Tell a file that the system does not let us use from one that is damaged."""
    if any(words in str(error) for words in SYSTEM):
        return StorageError(_cannot_write(path, error))
    return StudyError(_damaged(path, str(error).splitlines()[0]))


def _damaged(path: Path, got: str) -> str:
    return explain(
        f"study '{path}'",
        expected="an intact study of autocompress",
        got=got,
        remedy="restore it from a copy, or use another study_dir",
    )


def _cannot_write(path: Path, error: BaseException) -> str:
    space = "free some space or choose another folder"
    todo = "end what uses it" if "is locked" in str(error) else space
    remedy, got = f"{todo}, then run the same command again", str(error).splitlines()[0]
    return explain(f"study '{path}'", expected="to be able to write it", got=got, remedy=remedy)
