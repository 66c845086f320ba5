"""What readers stumble over is told as what is wrong with the file."""

from pathlib import Path

import pytest

from autocompress.cost.content import checked_content
from autocompress.errors import InvalidInputError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("kernels"), "no key 'kernels'"),
        (TypeError("a list, no number."), "a list, no number;"),
        (ValueError("NaN"), "NaN"),
        (AttributeError("no items"), "no items"),
    ],
)
def test_errors_of_a_reader_name_the_file_and_the_remedy(error: Exception, words: str) -> None:
    with (
        pytest.raises(InvalidInputError, match=r"'a\.json': expected a profile.*again") as raised,
        checked_content(Path("a.json"), "a profile", remedy="profile again"),
    ):
        raise error
    assert words in str(raised.value)


def test_other_errors_are_not_the_files_fault() -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        checked_content(Path("a.json"), "a profile", remedy="profile again"),
    ):
        raise KeyboardInterrupt
