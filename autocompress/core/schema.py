"""Checks that every record read from JSON passes: its version, its keys and its numbers."""

import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from autocompress.errors import InvalidInputError, WrongTypeError, check_type, explain

SCHEMA_VERSION = 1

_EXPECTED = {
    "dict_type": "a mapping of keys to values",
    "float_type": "a number",
    "int_type": "an integer",
    "invalid_key": "a name as key",
    "missing": "a value",
    "model_type": "a mapping of keys to values",
    "string_type": "a text",
    "too_short": "at least one entry",
    "tuple_type": "a list",
}
"""Our words for pydantic's types of errors, where its own mislead."""


def check_version(record: object, *, what: str) -> None:
    """Refuse a decoded JSON object that another version of autocompress wrote.

    Raises:
        InvalidInputError: If it has another schema version.
    """
    kept = record if isinstance(record, Mapping) else {}
    version = kept.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise InvalidInputError(
            explain(
                f"{what}, 'schema_version'",
                expected=SCHEMA_VERSION,
                got=version,
                remedy="use the version of autocompress that wrote it",
            )
        )


def check_record(
    record: object, *, what: str, keys: Collection[str], required: Collection[str] = ()
) -> Mapping[str, Any]:
    """Check a decoded JSON object before it becomes one of our dataclasses.

    Args:
        record: The decoded JSON value.
        what: What the record is, for the message.
        keys: The keys that are allowed, "schema_version" not counted.
        required: Those of them that must be there.

    Returns:
        The record without its "schema_version".

    Raises:
        WrongTypeError: If the record is not an object.
        InvalidInputError: If it has an unknown key, lacks a required one, or
            has another schema version.
    """
    if not isinstance(record, Mapping):
        raise WrongTypeError(
            explain(what, expected="an object", got=type(record).__name__, remedy="check the file")
        )
    check_version(record, what=what)
    rest = {key: value for key, value in record.items() if key != "schema_version"}
    for key in rest:
        if key not in keys:
            raise InvalidInputError(unknown_name(f"{what}, key", str(key), keys))
    for key in required:
        if key not in rest:
            raise InvalidInputError(
                explain(
                    f"{what}, key '{key}'", expected="a value", got="none", remedy="add the key"
                )
            )
    return rest


def expected_value(error: Mapping[str, Any]) -> str:
    """Say what would have been accepted in place of what pydantic refused.

    Args:
        error: One of the errors of a `ValidationError`.

    Example:
        >>> expected_value({"type": "tuple_type", "msg": "Input should be a valid tuple"})
        'a list'
    """
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return _EXPECTED.get(error["type"], message)


def check_name(what: str, got: object, known: Collection[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        InvalidInputError: With the closest known one as the remedy.

    Example:
        >>> check_name("space", "cnn", ["cnn"])
    """
    if got not in known:
        raise InvalidInputError(unknown_name(what, str(got), known))


def check_number(
    what: str, value: object, *, low: float, high: float = math.inf, open_high: bool = False
) -> None:
    """Refuse what is no number in [low, high].

    Args:
        what: What it is, for the message.
        value: A number, or what was given for one.
        low: Smallest value.
        high: Largest value.
        open_high: Whether `high` itself is refused.

    Raises:
        WrongTypeError: If it is no number.
        InvalidInputError: If it is outside, or not finite.

    Example:
        >>> check_number("'ema'", 1.0, low=0.0, high=1.0, open_high=True)
        Traceback (most recent call last):
        autocompress.errors.InvalidInputError: 'ema': expected a number >= 0 and < 1, got 1.0; \
correct the value.
    """
    if isinstance(value, int):
        check_type(what, value, int)
    number = float(value) if isinstance(value, int) else check_type(what, value, float)
    inside = low <= number and (number < high if open_high else number <= high)
    if not (math.isfinite(number) and inside):
        end = "" if high == math.inf else f" and {'<' if open_high else '<='} {high:g}"
        raise InvalidInputError(
            explain(
                what, expected=f"a number >= {low:g}{end}", got=value, remedy="correct the value"
            )
        )


def unknown_name(what: str, got: str, known: Collection[str]) -> str:
    """Word the refusal of a name, with the closest known one as the remedy.

    Example:
        >>> unknown_name("space", "cn", ["cnn"])
        "space: expected one of 'cnn', got 'cn'; did you mean 'cnn'?"
        >>> unknown_name("block", "layer1", [])
        "block: expected none, since there are none, got 'layer1'; leave it out."
    """
    if not known:
        expected = "none, since there are none"
        return explain(what, expected=expected, got=f"'{got}'", remedy="leave it out")
    close = get_close_matches(got, list(known), n=1)
    listed = ", ".join(f"'{name}'" for name in sorted(known))
    hint = f"did you mean '{close[0]}'?" if close else "choose one of them."
    return f"{what}: expected one of {listed}, got '{got}'; {hint}"
