"""The pool that a search gets: this process, or Ray where it is installed."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller.pools import open_pool
from autocompress.controller.work import Work
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.executor import Executor
from autocompress.errors import MissingExtraError

FOUND = FidelityResult(accuracy=0.7, images=10, trained_images=0, seconds=0.1)


def _run(executor: Executor) -> Any:
    evaluator = SimpleNamespace(proxy=lambda _: FOUND)
    setup = SimpleNamespace(executor=executor)
    return SimpleNamespace(setup=setup, evaluator=evaluator, watch=lambda *_: None)


def test_inline_work_is_done_here_by_the_evaluator_of_the_search() -> None:
    with open_pool(_run(Executor())) as pool:
        assert not pool.is_remote
        pool.submit(Work(slot=5, candidate=Candidate(), fidelity=0))
        outcome = pool.wait(0.0)
        assert pool.wait(0.0) is None
    assert outcome is not None
    assert (outcome.slot, outcome.result) == (5, FOUND)


def test_ray_that_is_not_installed_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "autocompress.controller.ray_pool", raising=False)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'ray\[tune\]'"),
        open_pool(_run(Executor(name="ray"))),
    ):
        pass
