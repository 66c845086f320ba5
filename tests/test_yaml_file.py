from pathlib import Path

import pytest

from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError
from autocompress.yaml_file import line_of, read_yaml


def test_a_mapping_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\nbudget: {trials: 3}\n", encoding="utf-8")
    assert read_yaml(path) == {"seed": 1, "budget": {"trials": 3}}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a: {b: 1, b: 2}", InvalidInputError, "line 1 .a second key 'b'"),
        ("a: [", InvalidInputError, "expected YAML, got a mistake in line 1"),
        ("", WrongTypeError, "got an empty file"),
        ("- a", WrongTypeError, "expected a mapping of keys to values, got list"),
    ],
)
def test_anything_else_is_refused(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_yaml(path)


def test_a_folder_and_nothing_at_all_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="got a folder"):
        read_yaml(tmp_path)
    with pytest.raises(MissingFileError, match="got nothing there"):
        read_yaml(tmp_path / "none.yaml")


def test_the_line_of_a_key_is_that_of_the_deepest_part_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# first\nbudget:\n  trials: 1\nlist:\n  - a\n  - b\n")
    assert line_of(path, ["budget", "trials"]) == 3
    assert line_of(path, ["budget", "minutes"]) == 2
    assert line_of(path, ["list", 1]) == 6
    assert line_of(path, ["seed"]) is None
    assert line_of(path, ["budget"], "budget 'trials': expected >= 1") == 3
