"""What is wrong with the content of a file, said as one kind of error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autocompress.errors import InvalidInputError, explain


@contextmanager
def checked_content(path: Path, expected: str, *, remedy: str) -> Iterator[None]:
    """Refuse a file whose decoded JSON is not built as its reader takes it.

    Args:
        path: The file.
        expected: What it should be.
        remedy: What the user can do about it.

    Raises:
        InvalidInputError: In place of what the reader stumbles over.

    Example:
        >>> with checked_content(Path("a.json"), "a profile", remedy="profile again"):
        ...     {}["kernels"]
        Traceback (most recent call last):
        autocompress.errors.InvalidInputError: 'a.json': expected a profile, got this problem: \
no key 'kernels'; profile again.
    """
    try:
        yield
        return
    except KeyError as error:
        problem = f"no key {error}"
    except (AttributeError, TypeError, ValueError) as error:
        problem = str(error).rstrip(".")
    raise InvalidInputError(
        explain(f"'{path}'", expected=expected, got=f"this problem: {problem}", remedy=remedy)
    )
