"""YAML files that are read strictly."""

from pathlib import Path
from typing import Any

import yaml

from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError, explain


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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping with string keys.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is not YAML, or a key is written twice.
        WrongTypeError: If it holds something else.
    """
    if not path.is_file():
        raise MissingFileError(
            explain(
                f"'{path}'",
                expected="a file",
                got="a folder" if path.is_dir() else "nothing there",
                remedy="check the path",
            )
        )
    try:
        record = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
