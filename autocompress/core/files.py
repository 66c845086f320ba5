"""Files that are either whole or absent: atomic writes and checked reads."""

import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from autocompress.errors import InvalidInputError, MissingFileError, StorageError, explain

MOST_TEXT = 256 * 2**20
"""Bytes that a file of text may have."""

UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file of arrays raises, beside mistakes in its content."""

MOST_INTEGER = 2**63 - 1
"""Largest whole number that a file may hold."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file through a temporary sibling that replaces it when complete.

    Args:
        path: The file to create or replace; its folder is created.
        write: Called with the temporary path; must leave a whole file there.

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise StorageError(_cannot_write(path, error)) from error
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # which stands for one of the system's
        raise StorageError(_cannot_write(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically; see `write_atomic`."""
    write_atomic(path, lambda temporary: _discard(temporary.write_bytes(content)))


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically; see `write_atomic`."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; NaN and infinities are refused.

    Raises:
        InvalidInputError: If the content is not plain JSON.
        StorageError: If the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            explain(
                f"content of {path.name}", expected="plain JSON", got=error, remedy="report this"
            )
        ) from error
    write_text(path, text + "\n")


def read_text(path: Path, kind: str = "a text") -> str:
    """Read a file of UTF-8 text, which may hold `MOST_TEXT` bytes.

    Args:
        path: The file.
        kind: What it should be, for messages.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is too large, or no such text.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise MissingFileError(
            explain(f"'{path}'", expected="a file", got=got, remedy="check the path")
        )
    with path.open("rb") as file:
        content = file.read(MOST_TEXT + 1)
    try:
        if len(content) > MOST_TEXT:
            raise ValueError(f"more than {MOST_TEXT} bytes")
        return content.decode("utf-8")
    except ValueError as error:
        raise InvalidInputError(
            explain(f"'{path}'", expected=kind, got=error, remedy="restore or delete the file")
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If the file is not JSON.
    """
    text = read_text(path, "JSON")
    try:
        return parse_json(text)
    except ValueError as error:
        raise InvalidInputError(
            explain(f"'{path}'", expected="JSON", got=error, remedy="restore or delete the file")
        ) from error


def parse_json(text: str) -> Any:
    """Decode JSON with numbers that can be computed with.

    Raises:
        ValueError: If it is none, is nested too deeply, or has a number that
            is not finite or beyond 64 bits.
    """
    try:
        return json.loads(text, parse_int=_integer, parse_float=_fraction, parse_constant=_integer)
    except RecursionError as error:
        raise ValueError("too many levels") from error


def _integer(text: str) -> int:
    value = int(text) if len(text) < 20 else MOST_INTEGER + 1
    if abs(value) > MOST_INTEGER:
        raise ValueError(f"a number of {len(text)} digits")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number that is too large, {text}")
    return value


def _discard(_: object) -> None:
    return None


def _cannot_write(path: Path, error: Exception) -> str:
    in_the_way = isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError))
    todo = "move what is in its way" if in_the_way else "free some space"
    return explain(
        f"'{path}'",
        expected="to be able to write it",
        got=getattr(error, "strerror", None) or error,
        remedy=f"{todo} or choose another folder, then run the same command again",
    )
