"""Environment variables that replace values of a configuration."""

from collections.abc import Mapping
from typing import Any

from autocompress.core.environment import STORAGE_PASSWORD
from autocompress.errors import InvalidInputError, explain
from autocompress.yaml_file import YAML_ERRORS, parse_yaml

PREFIX = "AUTOCOMPRESS_"
"""What their names begin with; sections and keys follow, with two underscores between."""


def read_overrides(environment: Mapping[str, str]) -> dict[tuple[str, ...], Any]:
    """Read what environment variables say of a configuration.

    Args:
        environment: Variables by name; values are YAML.

    Returns:
        Values by key, outer sections first. Keys are lower case, but for those of `args`,
        which a factory may spell otherwise: there only what is all upper case is lowered.

    Raises:
        InvalidInputError: If a value is not YAML.

    Example:
        >>> read_overrides({"AUTOCOMPRESS_BUDGET__TRIALS": "20", "HOME": "/root"})
        {('budget', 'trials'): 20}
    """
    found = {}
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX) and name != STORAGE_PASSWORD:
            keys = _keys(name.removeprefix(PREFIX))
            try:
                found[keys] = parse_yaml(text)
            except YAML_ERRORS as error:
                raise InvalidInputError(
                    explain(
                        f"environment variable {name}",
                        expected="a value as in YAML",
                        got=f"'{text}'",
                        remedy="correct it, or unset it",
                    )
                ) from error
    return found


def _keys(name: str) -> tuple[str, ...]:
    parts = name.split("__")
    lowered = [part.lower() for part in parts]
    inner = lowered.index("args") + 1 if "args" in lowered else len(parts)
    kept = [part.lower() if part.isupper() else part for part in parts[inner:]]
    return (*lowered[:inner], *kept)


def override(record: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Replace one value of a nested record, which stays as it was.

    Args:
        record: The record.
        keys: Where the value goes; a text on the way there is the name of its section.
        value: The value.

    Example:
        >>> override({"target": "openvino-cpu"}, ("target", "threads"), 2)
        {'target': {'name': 'openvino-cpu', 'threads': 2}}
    """
    first, *rest = keys
    if not rest:
        return {**record, first: value}
    inner = record.get(first)
    section = {"name": inner} if isinstance(inner, str) else inner
    within = section if isinstance(section, Mapping) else {}
    return {**record, first: override(within, tuple(rest), value)}


def variable_name(keys: tuple[str, ...]) -> str:
    """Return the name of the variable that stands for a key; see `read_overrides`.

    Example:
        >>> variable_name(("budget", "trials"))
        'AUTOCOMPRESS_BUDGET__TRIALS'
    """
    return PREFIX + "__".join(key.upper() if key.islower() else key for key in keys)
