"""The error family: every error a user can meet, each also a fitting builtin."""

from typing import TypeVar

T = TypeVar("T")

__all__ = [
    "AutocompressError",
    "ExportError",
    "InvalidInputError",
    "MeasurementError",
    "MismatchError",
    "MissingExtraError",
    "MissingFileError",
    "SearchFailedError",
    "StorageError",
    "StudyError",
    "TraceError",
    "TrainingError",
    "WrongTypeError",
]


class AutocompressError(Exception):
    """Base of all errors that autocompress raises on purpose."""


class InvalidInputError(AutocompressError, ValueError):
    """A value is outside what the function accepts."""


class WrongTypeError(AutocompressError, TypeError):
    """A value has a type that the function does not accept."""


class MissingFileError(AutocompressError, FileNotFoundError):
    """A file that the caller named does not exist."""


class TraceError(AutocompressError, RuntimeError):
    """A model cannot be followed from its example inputs."""


class ExportError(AutocompressError, RuntimeError):
    """An artifact cannot be written, or does not reproduce its model."""


class MismatchError(ExportError):
    """A file runs, but is not as accurate as its model."""


class MeasurementError(AutocompressError, RuntimeError):
    """A latency cannot be measured on this host."""


class TrainingError(AutocompressError, ArithmeticError):
    """Training diverged or produced values that are not finite."""


class SearchFailedError(AutocompressError, RuntimeError):
    """A search cannot go on, although its input was right."""


class StudyError(AutocompressError, RuntimeError):
    """A study on disk is damaged, or belongs to another model or space."""


class StorageError(AutocompressError, OSError):
    """A file of the study cannot be written, for example on a full disk."""


class MissingExtraError(AutocompressError, ImportError):
    """An optional dependency is needed; the message names the extra."""


def explain(what: str, *, expected: object, got: object, remedy: str) -> str:
    """Word an error the way every message of the package is worded.

    Args:
        what: The thing that is wrong, for example "constraint 'latency_ms'".
        expected: What would have been accepted.
        got: What was received.
        remedy: What the reader can do about it.

    Returns:
        One sentence with all four parts.

    Example:
        >>> explain("'threads'", expected="an integer >= 1", got=0, remedy="set threads: 1")
        "'threads': expected an integer >= 1, got 0; set threads: 1."
    """
    return f"{what}: expected {expected}, got {got}; {remedy}."


def describe(error: Exception) -> str:
    """Say what an error says; one that is not worded here says of what type it is, too.

    Example:
        >>> describe(KeyError("labels"))
        "KeyError: 'labels'"
    """
    return (
        str(error) if isinstance(error, AutocompressError) else f"{type(error).__name__}: {error}"
    )


def check_type(what: str, value: object, kind: type[T]) -> T:
    """Return a value, or refuse one of another type; a boolean is no number.

    Raises:
        WrongTypeError: If `value` is not a `kind`.

    Example:
        >>> check_type("'seed'", "7", int)
        Traceback (most recent call last):
        autocompress.errors.WrongTypeError: 'seed': expected an int, got '7'; pass an int.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    name = kind.__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    got = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
    raise WrongTypeError(
        explain(what, expected=f"{article} {name}", got=got, remedy=f"pass {article} {name}")
    )
