"""Where the trials of a study are kept: a file beside it, a journal, or a database server."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from autocompress.core.addresses import JOURNAL
from autocompress.core.environment import STORAGE_PASSWORD
from autocompress.core.files import read_json, write_json
from autocompress.core.schema import SCHEMA_VERSION, check_record
from autocompress.errors import (
    InvalidInputError,
    MissingExtraError,
    StorageError,
    StudyError,
    explain,
)

SERVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}
"""Kinds of database servers, and the drivers that the extra "storage" installs."""

_ATTRIBUTES = tuple(
    f"{of}_{kind}_attributes" for of in ("study", "trial") for kind in ("user", "system")
)
"""Tables of Optuna whose values may be long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """A study outside of its folder; the folder keeps where it is.

    Attributes:
        url: Address without a password: a database server's, for example
            "postgresql://me@host/db", or "journal:/path/of/a/file".
        study: The study's name there.
    """

    url: str
    study: str

    @classmethod
    def new(cls, url: str, folder: Path) -> "Storage":
        """Name a new study at an address, after its folder.

        Raises:
            InvalidInputError: If studies cannot be kept there.
        """
        check_url(url)
        if url.startswith(JOURNAL):
            url = JOURNAL + str(_journal_path(url).absolute())
        return cls(url=url, study=f"autocompress-{folder.name}-{secrets.token_hex(4)}")

    @classmethod
    def of(cls, path: Path) -> "Storage | None":
        """Read where a study is kept if not in its own file.

        Args:
            path: The study's own file; the note is beside it.
        """
        note = _note(path)
        if not note.is_file():
            return None
        keys = ("url", "study")
        found = check_record(read_json(note), what=f"'{note}'", keys=keys, required=keys)
        check_url(str(found["url"]))
        return cls(url=str(found["url"]), study=str(found["study"]))

    def keep(self, path: Path) -> None:
        """Note beside a study's own file where it is kept."""
        record = {"schema_version": SCHEMA_VERSION, "url": self.url, "study": self.study}
        write_json(_note(path), record)

    def connect(self, *, create: bool = False, read_only: bool = False) -> BaseStorage:
        """Open the storage.

        Args:
            create: Whether a journal may be new.
            read_only: Whether a journal stays as it is; its writer may be within a line.

        Raises:
            MissingExtraError: If the server's driver is not installed.
            StorageError: If it cannot be reached.
            StudyError: If a journal is damaged.
        """
        try:
            if self.url.startswith(JOURNAL):
                path = _journal_path(self.url)
                if create:
                    path.parent.mkdir(parents=True, exist_ok=True)
                return _journal(path, create=create, read_only=read_only)
            url = sqlalchemy.make_url(self.url)
            driver = SERVERS.get(url.drivername, url.drivername)
            url = url.set(drivername=driver, password=os.environ.get(STORAGE_PASSWORD))
            storage = open_tables(url, what=f"storage '{self.url}'", pool_pre_ping=True)
            if url.get_backend_name() == "mysql":
                _widen(storage.engine)
            return storage
        except ImportError as error:
            raise MissingExtraError(
                explain(
                    f"storage '{self.url}'",
                    expected="its driver to be installed",
                    got=str(error).splitlines()[0],
                    remedy="pip install 'autocompress[storage]'",
                )
            ) from error
        except json.JSONDecodeError as error:
            raise StudyError(
                explain(
                    f"storage '{self.url}'",
                    expected="a whole journal",
                    got=f"a line that is none: {error}",
                    remedy="restore it from a copy, or use another study_dir",
                )
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, OSError) as error:
            raise StorageError(
                explain(
                    f"storage '{self.url}'",
                    expected="to reach it",
                    got=str(error.__cause__ or error).splitlines()[0],
                    remedy=f"check the address, and the password in {STORAGE_PASSWORD}",
                )
            ) from error


def open_tables(
    url: sqlalchemy.URL, *, what: str, read_only: bool = False, **engine: Any
) -> RDBStorage:
    """Open Optuna's tables in a database.

    Args:
        url: The database, with its password.
        what: What it is, for a message.
        read_only: Whether tables that are not there are missing for good.
        engine: Settings of SQLAlchemy's engine.

    Raises:
        StudyError: If a version of Optuna with other tables has made them.
    """
    text = url.render_as_string(hide_password=False)
    try:
        return RDBStorage(
            text.replace("{", "{{").replace("}", "}}"),
            engine_kwargs=engine,
            skip_table_creation=read_only,
        )
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise StudyError(
            explain(
                what,
                expected=f"tables of Optuna {optuna.__version__}",
                got=f"others: {error}",
                remedy="do that on a copy, or install the Optuna that set them up",
            )
        ) from error


def study_exists(path: Path) -> bool:
    """Tell whether there is a study, in its own file or where a note beside it says."""
    return path.is_file() or _note(path).is_file()


def check_url(url: str) -> None:
    """Refuse an address at which studies are not kept, or that holds a password.

    Raises:
        InvalidInputError: With what would do.

    Example:
        >>> check_url("postgresql://me@localhost/trials")
        >>> check_url("journal:/mnt/shared/trials.log")
    """
    if url.startswith(JOURNAL) and len(url) > len(JOURNAL):
        return
    try:
        parsed = sqlalchemy.make_url(url)
        kind, password = parsed.get_backend_name(), parsed.password
    except sqlalchemy.exc.ArgumentError:
        kind, password = "", None
    if kind not in SERVERS:
        raise InvalidInputError(
            explain(
                "'storage'",
                expected="'postgresql://user@host/database', 'mysql://...' or 'journal:/a/file'",
                got="another address",
                remedy="leave it out to keep the study in a file of its folder",
            )
        )
    if password is not None:
        raise InvalidInputError(
            explain(
                "'storage'",
                expected="an address without a password",
                got="one with a password, which would be written to files",
                remedy=f"set the environment variable {STORAGE_PASSWORD} instead",
            )
        )


def check_place(path: Path, url: str | None) -> None:
    """Refuse to continue a study at another place than it is kept at.

    Args:
        path: The study's own file.
        url: Where it is said to be kept; None says nothing.

    Raises:
        StudyError: If it is kept elsewhere.
    """
    place = Storage.of(path)
    if url is not None and (place is None or Storage.new(url, path.parent).url != place.url):
        raise StudyError(
            explain(
                f"study '{path.parent}'",
                expected=f"to be kept at '{url}'",
                got=f"'{path if place is None else place.url}'",
                remedy="leave the storage out, or use another study_dir",
            )
        )


def forget_copy(path: Path) -> None:
    """Delete the copy of a study that is kept elsewhere, which goes on there."""
    if Storage.of(path) is not None:
        path.unlink(missing_ok=True)


def _widen(engine: sqlalchemy.Engine) -> None:
    """Give attributes the room that they have elsewhere: a TEXT of MySQL ends at 64 KiB."""
    columns = sqlalchemy.text(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND column_name = 'value_json' AND data_type = 'text'"
    )
    with engine.begin() as connection:
        for (table,) in connection.execute(columns).all():
            if table in _ATTRIBUTES:
                change = f"ALTER TABLE {table} MODIFY value_json LONGTEXT NOT NULL"
                connection.execute(sqlalchemy.text(change))


def _note(path: Path) -> Path:
    return path.with_name("storage.json")


def _journal_path(url: str) -> Path:
    path = url.removeprefix(JOURNAL)
    return Path("/" + path.lstrip("/") if path.startswith("/") else path)


def _journal(path: Path, *, create: bool, read_only: bool) -> JournalStorage:
    """Open a journal; its writer cuts off what a killed process left half-written at its end."""
    if not (create or path.is_file()):
        raise FileNotFoundError(f"there is no file '{path}'")
    if not read_only and path.exists() and not _is_whole(path):
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()  # or else it may be a line that another search is writing
        try:
            if not _is_whole(path):
                with path.open("rb+") as file:
                    file.truncate(file.read().rfind(b"\n") + 1)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path)))


def _is_whole(path: Path) -> bool:
    """Tell whether a journal's last line is complete."""
    if path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
