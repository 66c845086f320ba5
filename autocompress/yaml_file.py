"""YAML files that are read strictly, and written so that they are read again as they were."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from autocompress.core.files import MOST_INTEGER, read_text
from autocompress.errors import InvalidInputError, WrongTypeError, explain

YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, RecursionError)
"""What reading a text that is not YAML may raise."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, where YAML would keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"a second key '{key.value}'", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse a number that cannot be computed with."""
        value = int(super().construct_yaml_int(node))
        if abs(value) > MOST_INTEGER:
            raise yaml.MarkedYAMLError(
                problem="a number beyond 64 bits", problem_mark=node.start_mark
            )
        return value


class _Dumper(yaml.SafeDumper):
    """Writes tuples as lists, and quotes texts that would be read as numbers."""


EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3, which are texts to YAML 1.1, and to the library, but not to YAML 1.2."""

for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, [*"-+.0123456789"])
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Dumper.add_representer(tuple, _Dumper.represent_list)


def parse_yaml(text: str) -> Any:
    """Read a text as strictly as a file.

    Raises:
        yaml.YAMLError: If it is not YAML, or a key is written twice; mistakes inside values
            raise ValueError or TypeError, too deep ones RecursionError.
    """
    return yaml.load(text, Loader=_Loader)


def dump_yaml(record: Mapping[str, Any], *, flow: bool = False) -> str:
    """Write a mapping of what YAML holds, in its order.

    Args:
        record: The mapping.
        flow: Whether to write one line, in braces.

    Example:
        >>> dump_yaml({"bits": (8, 4), "rate": "1e-3"}, flow=True).strip()
        "{bits: [8, 4], rate: '1e-3'}"
    """
    width = math.inf if flow else None
    style = True if flow else None
    return yaml.dump(
        dict(record), Dumper=_Dumper, sort_keys=False, default_flow_style=style, width=width
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping with string keys.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is not YAML, or a key is written twice.
        WrongTypeError: If it holds something else.
    """
    text = read_text(path, "YAML")
    try:
        record = parse_yaml(text)
    except YAML_ERRORS as error:
        got: object = error
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            got = f"a mistake in line {error.problem_mark.line + 1} ({error.problem})"
        raise InvalidInputError(
            explain(f"'{path}'", expected="YAML", got=got, remedy="correct the file")
        ) from error
    if not isinstance(record, dict) or not all(isinstance(key, str) for key in record):
        raise WrongTypeError(
            explain(
                f"'{path}'",
                expected="a mapping of keys to values",
                got="an empty file" if record is None else type(record).__name__,
                remedy="begin with 'model:'",
            )
        )
    return record


def line_of(path: Path, keys: Sequence[str | int], mentioned: str = "") -> int | None:
    """Find where a key stands in a YAML file.

    Args:
        path: The file, which `read_yaml` has read.
        keys: The way to it; where it ends early, the last part that is there counts.
        mentioned: A text that may name, in quotes, a key further in.

    Returns:
        The number of the line, from 1; None where not even the first key is there.
    """
    node = yaml.compose(read_text(path), Loader=_Loader)
    line, way = None, list(keys)
    while isinstance(node, (yaml.MappingNode, yaml.SequenceNode)):
        inner = _children(node)
        named = [key for key in inner if f"'{key}'" in mentioned]
        key = way.pop(0) if way else next(iter(named), None)
        if key not in inner:
            break
        line, node = inner[key]
    return line


def _children(node: yaml.Node) -> dict[str | int, tuple[int, yaml.Node]]:
    """List what is directly inside a node, each with its line."""
    if isinstance(node, yaml.MappingNode):
        pairs = node.value
        return {key.value: (key.start_mark.line + 1, value) for key, value in pairs}
    return {at: (item.start_mark.line + 1, item) for at, item in enumerate(node.value)}
