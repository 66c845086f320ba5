"""Where trials run, and what is refused."""

from typing import Any

import pytest

from autocompress.core.executor import Executor
from autocompress.errors import InvalidInputError, WrongTypeError


def test_a_name_keys_or_an_executor_say_the_same() -> None:
    given = Executor(name="ray", workers=2)
    assert Executor.of(given) is given
    assert Executor.of({"name": "ray", "workers": 2}) == given
    assert Executor.of("inline") == Executor()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("rai", InvalidInputError, "did you mean 'ray'"),
        ({"name": "ray", "worker": 2}, InvalidInputError, "did you mean 'workers'"),
        ({"name": "ray", "workers": 0}, InvalidInputError, "executor 'workers': expected >= 1"),
        ({"name": "ray", "workers": 1.5}, WrongTypeError, "executor 'workers'"),
        ({"name": "ray", "gpus": -0.5}, InvalidInputError, "executor 'gpus'"),
        ({"name": "ray", "address": 5}, WrongTypeError, "executor 'address'"),
        ({"seconds_per_trial": 0.0}, InvalidInputError, "executor 'seconds_per_trial'"),
        ({"name": "inline", "workers": 2}, InvalidInputError, "choose the executor 'ray'"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Executor.of(given)
