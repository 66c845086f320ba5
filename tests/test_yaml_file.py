import datetime
import math
from pathlib import Path

import pytest

from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError
from autocompress.yaml_file import dump_yaml, line_of, parse_yaml, read_yaml


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2.5E4", -2.5e4),
        (".5e1", 5.0),
        ("3e2", 300.0),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e3x", "1e3x"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_numbers_with_exponents_need_no_point(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


def test_what_is_written_is_read_again_as_it_was() -> None:
    record = {
        "widths": {1: 8, 2: 16},
        "when": datetime.date(2020, 1, 1),
        "most": math.inf,
        "name": "1e-3",
        "rates": [1e-20, 1e300, 0.1],
        "nothing": None,
    }
    assert parse_yaml(dump_yaml(record)) == record
    assert parse_yaml(dump_yaml({"pairs": ((8, 4), ())})) == {"pairs": [[8, 4], []]}
