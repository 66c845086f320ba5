import inspect

import pytest

from autocompress import errors
from autocompress.errors import AutocompressError, explain

FAMILY = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, AutocompressError) and error is not AutocompressError
]


@pytest.mark.parametrize("error", FAMILY, ids=lambda error: error.__name__)
def test_every_error_is_also_a_builtin(error: type[Exception]) -> None:
    builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
    assert any(base not in (Exception, BaseException, object) for base in builtins)


def test_the_whole_family_is_public() -> None:
    assert sorted(errors.__all__) == sorted(["AutocompressError", *(e.__name__ for e in FAMILY)])


def test_the_error_sentence_has_all_four_parts() -> None:
    sentence = explain("'x'", expected="a number", got="'y'", remedy="write x: 1")
    assert sentence == "'x': expected a number, got 'y'; write x: 1."
