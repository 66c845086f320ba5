"""Costs, criteria and targets that other packages register under entry points."""

import functools
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar

from autocompress.errors import InvalidInputError, WrongTypeError, explain

T = TypeVar("T")

Kind = Literal["costs", "criteria", "targets"]
"""What can be registered, under the group `autocompress.<kind>`."""


@functools.cache
def plugin_names(kind: Kind) -> tuple[str, ...]:
    """List what is registered, by name."""
    return tuple(sorted({point.name for point in entry_points(group=f"autocompress.{kind}")}))


def load_plugin(kind: Kind, name: str, expected: type[T]) -> T:
    """Load what is registered under a name.

    Args:
        kind: What it is.
        name: One of `plugin_names`.
        expected: The class that it must be of.

    Raises:
        InvalidInputError: If its package fails to import.
        WrongTypeError: If it is something else.
    """
    found = _loaded(kind, name)
    if not isinstance(found, expected):
        raise WrongTypeError(
            explain(
                f"'{name}' of the entry points 'autocompress.{kind}'",
                expected=f"a {expected.__name__}",
                got=type(found).__name__,
                remedy="correct the package that registers it",
            )
        )
    return found


@functools.cache
def _loaded(kind: Kind, name: str) -> Any:
    point = next(p for p in entry_points(group=f"autocompress.{kind}") if p.name == name)
    try:
        return point.load()
    except Exception as error:  # code of another package
        raise InvalidInputError(
            explain(
                f"'{name}' of the entry points 'autocompress.{kind}'",
                expected=f"that '{point.value}' can be imported",
                got=f"{type(error).__name__}: {error}",
                remedy="mend or remove the package that registers it",
            )
        ) from error
